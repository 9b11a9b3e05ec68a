"""What every GPU backend passes, on the CUDA kernels; and what takes too many rows for Triton's interpreter."""

from tests.kernels.every_backend import *  # noqa: F403
from tests.kernels.every_backend import any_shape
from tests.verify.test_block import (  # noqa: F401
    test_one_draft_that_is_no_sample_sends_its_request_alone_to_the_token_rule,
    test_the_batch_and_the_layout_do_not_matter,
)

test_any_shape = any_shape(40)
