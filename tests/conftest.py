import pytest
from hypothesis import settings

# Derandomised: a failure in CI is the failure at the desk. No deadline: the machines that run this differ widely.
settings.register_profile("specdec", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("specdec")


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on any machine; both must pass the same tests."""
    return request.param
