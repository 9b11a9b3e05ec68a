"""What every GPU backend passes, on the triton kernels."""

import pytest

from specdec.verify import triton
from tests.helpers import worked
from tests.kernels.every_backend import *  # noqa: F403
from tests.kernels.every_backend import any_shape

test_any_shape = any_shape(8)

# Of test_three_outcomes_of_one_block: the first accepts two drafts, the second one, the others none.
FEW_SEEDS = [0, 1, 2, 3]


@pytest.fixture(autouse=True)
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes a twentieth of a second for a row."""
    if triton.interpreted():
        monkeypatch.setattr(worked, "SEEDS", FEW_SEEDS)
