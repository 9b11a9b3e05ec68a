"""The steering kernel on the GPU; without one, in Triton's interpreter, which is chosen where a kernel is defined."""

import pytest
import torch

from tests.helpers.interpreter import import_interpreted

pytest.importorskip("triton")

if not torch.cuda.is_available():
    import_interpreted("specdec.steering.triton")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
