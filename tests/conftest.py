import importlib
import importlib.util

import pytest
import torch
from hypothesis import settings

# Derandomised: a failure in CI is the failure at the desk. No deadline: the machines that run this differ widely.
settings.register_profile("specdec", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("specdec")

# Without a GPU the triton backend runs in Triton's interpreter, which is chosen where kernels are defined: so they are
# imported here, before anything else imports triton. No child process must find the variable.
if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("specdec.verify.triton")
        importlib.import_module("triton.experimental.gluon")  # a launch would import it, and look for the variable


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on any machine; both must pass the same tests."""
    return request.param
