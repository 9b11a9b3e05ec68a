import importlib.util

import pytest
import torch
from hypothesis import settings

from tests.helpers.interpreter import import_interpreted

# Derandomised: a failure in CI is the failure at the desk. No deadline: the machines that run this differ widely.
settings.register_profile("specdec", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("specdec")

# Here, before anything else imports triton.
if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    import_interpreted("specdec.verify.triton")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start engines come first: each takes minutes, and one that began last would run beside nothing."""
    items.sort(key=lambda item: "engine" not in item.keywords)


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on any machine; both must pass the same tests."""
    return request.param
