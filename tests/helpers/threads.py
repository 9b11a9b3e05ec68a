"""How many threads torch has in tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors by the thousand: on a busy machine, waiting for torch's threads takes longer than the work.

    For the tests of every folder whose conftest imports it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
