"""The emulation finds what on a GPU would be undefined, and the kernels do nothing of the kind."""

import ctypes
from collections.abc import Iterator

import pytest
import torch

from specdec.verify.cuda import Kernels
from tests.helpers.cases import random_case
from tests.kernels.cuda.conftest import WAYS
from tests.kernels.cuda.subject import Split
from tests.kernels.subject import run

FAULTS = {
    "a thread leaves": (1, "waits at block_sync, where 63 of 64 have arrived, for ever"),
    "a thread at another barrier": (2, "waits at team_sync, where 2 of 128 have arrived, for ever"),
    "a lane in another operation": (3, "lanes of a warp take part in different operations"),
    "no such block": (4, "a rank outside of the team"),
    "misaligned vector": (5, "an address 16 does not divide"),
    "beyond shared memory": (6, "a write beyond the end of shared memory"),
}


@pytest.fixture(scope="module")
def faulty(emulated: Kernels) -> ctypes.CDLL:
    library = emulated._library
    for function in (library.run_fault, library.run_race):
        function.argtypes, function.restype = [ctypes.c_int, ctypes.c_char_p], ctypes.c_char_p
    return library


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(faulty: ctypes.CDLL, name: str):
    fault, message = FAULTS[name]
    out = ctypes.create_string_buffer(64)
    assert message in (faulty.run_fault(fault, out) or b"").decode()
    assert faulty.run_fault(0, out) is None, "the next launch is none the worse"
    assert out.raw[0] == sum(range(32)) % 100


def test_a_missing_barrier_shows_in_another_order(faulty: ctypes.CDLL):
    def seen(order: int, with_barrier: int) -> set[int]:
        faulty.specdec_emulation_order(order)
        out = ctypes.create_string_buffer(64)
        assert faulty.run_race(with_barrier, out) is None
        return set(out.raw)

    assert [seen(order, 1) for order in (0, 1)] == [{1}, {1}]
    assert [seen(order, 0) for order in (0, 1)] == [{255}, {1}], "what is not yet written reads as poison"


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def split(request: pytest.FixtureRequest, emulated: Kernels) -> Iterator[Split]:
    yield Split(emulated, *request.param)
    emulated.limit()
    emulated._library.specdec_emulation_order(0)


@pytest.mark.parametrize("kind", ["stats", "logits"])
def test_the_order_of_the_threads_does_not_matter(split: Split, emulated: Kernels, kind: str):
    """Missing barriers would show. Every sum has an order of its own, or is one of integers: equal to the last bit."""
    case = random_case(1, 2500, 6, torch.float32, kind)
    seen = []
    for order in (0, 1, 2, 3):
        emulated._library.specdec_emulation_order(order)
        for method in ("token", "block"):
            out = run(split, case, method)
            seen.append(
                [out.token_ids, out.num_accepted, out.expected_acceptance, out.acceptance_probability.nan_to_num()]
            )
    for later in range(2, len(seen)):
        assert all(torch.equal(a, b) for a, b in zip(seen[later % 2], seen[later], strict=True))
