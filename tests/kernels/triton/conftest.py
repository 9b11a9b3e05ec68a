from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from specdec.verify import triton
from specdec.verify.backends import BACKENDS
from tests.helpers.threads import one_thread  # noqa: F401  a fixture, used here too
from tests.kernels.subject import Subject
from tests.kernels.triton.interpreter import patch_once


@pytest.fixture(scope="session")
def subject() -> Iterator[Subject]:
    """The kernels on the GPU; without one, in the interpreter."""
    if torch.cuda.is_available():
        yield Subject(triton, torch.device("cuda"))
    elif triton.interpreted():
        undo = patch_once()
        yield Subject(triton, torch.device("cpu"))
        undo()
    else:
        pytest.skip("no GPU, and triton was imported before TRITON_INTERPRET=1 was set")


@pytest.fixture
def backend(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend, for tests that every backend passes."""
    monkeypatch.setitem(BACKENDS._creators, "kernels under test", lambda: subject)
    monkeypatch.setitem(BACKENDS._created, "kernels under test", subject)
    return "kernels under test"
