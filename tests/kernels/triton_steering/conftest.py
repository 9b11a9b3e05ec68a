"""The steering kernel on the GPU; without one, in Triton's interpreter, which is chosen where a kernel is defined."""

import importlib

import pytest
import torch

pytest.importorskip("triton")

if not torch.cuda.is_available():
    with pytest.MonkeyPatch.context() as patch:  # no child process must find the variable
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("specdec.steering.triton")
        importlib.import_module("triton.experimental.gluon")  # a launch would import it, and look for the variable


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
