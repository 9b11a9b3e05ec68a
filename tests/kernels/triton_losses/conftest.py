"""The row step's kernel on the GPU; without one, in Triton's interpreter, which is chosen where a kernel is defined."""

import pytest
import torch

from tests.helpers.interpreter import import_interpreted

pytest.importorskip("triton")

if not torch.cuda.is_available():
    import_interpreted("specdec.training.fused.triton")


@pytest.fixture(scope="session")
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(tl.zeros, InterpretedFunction):
        pytest.skip("no GPU, and triton was imported before TRITON_INTERPRET=1 was set")
    return torch.device("cpu")
