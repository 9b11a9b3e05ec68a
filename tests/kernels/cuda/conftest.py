import os
from collections.abc import Iterator

import pytest
import torch

from specdec.verify import cuda
from specdec.verify.backends import BACKENDS
from specdec.verify.cuda import Kernels
from tests.helpers.threads import one_thread  # noqa: F401  a fixture, used here too
from tests.kernels.cuda.subject import Split, build_emulation, why_no_emulation
from tests.kernels.subject import Subject

# (thread blocks to a row, bytes of shared memory): rows in the shared memory of one block and of a cluster of four, and
# rows that do not fit.
WAYS = {"one block": (1, 0), "cluster": (4, 0), "not cached": (1, 6000), "cluster, not cached": (2, 6000)}
MACHINES = ["emulated", "device"]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """The kernels' own sources, compiled for the host: once for all processes of pytest-xdist."""
    reason = why_no_emulation()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    return Kernels(build_emulation(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base))


def machine(request: pytest.FixtureRequest, name: str) -> tuple[Kernels, torch.device]:
    if name == "emulated":
        return request.getfixturevalue("emulated"), torch.device("cpu")
    if (problem := cuda.problem()) is not None:
        pytest.skip(problem)
    return cuda.kernels(), torch.device("cuda")


@pytest.fixture(params=[(m, way) for m in MACHINES for way in WAYS], ids=" ".join)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Every way to split a row, on every machine there is."""
    name, way = request.param
    kernels, device = machine(request, name)
    team, shared = WAYS[way]
    # On a real device the workspace is larger, and so is what little is too little for a cache.
    yield Subject(Split(kernels, team, shared if name == "emulated" else 4 * shared), device)
    kernels.limit()


# Two blocks, of which one has no tile of a small vocabulary. Other ways to split a row are compared with the reference.
@pytest.fixture(params=[("emulated", 2), ("device", 0)], ids=MACHINES)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend, for tests that every backend passes."""
    name, team = request.param
    kernels, device = machine(request, name)
    subject = Subject(Split(kernels, team), device)
    monkeypatch.setitem(BACKENDS._creators, "kernels under test", lambda: subject)
    monkeypatch.setitem(BACKENDS._created, "kernels under test", subject)
    return "kernels under test"
