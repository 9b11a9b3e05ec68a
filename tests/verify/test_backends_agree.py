"""cpu against the reference, and its instruction sets against one another.

Tolerance: both work in float64, and differ by rounding alone. Design bound: other tokens in at most 0.05 % of requests.
"""

import functools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec.errors import SpecdecError
from specdec.verify import VerifyOutput, cpu, sample_draft, verify
from tests.helpers.cases import Case, random_case

ALLOWED = 0.0005
KINDS = ["stats", "logits", "one-hot"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        cpu.select_isa(request.param)
    except SpecdecError:
        pytest.skip(f"this machine cannot run {request.param}")
    assert cpu.isa() == request.param
    yield request.param
    cpu.select_isa("auto")


def reference(case: Case) -> VerifyOutput:
    return verify(case.target, case.draft, case.sampling, backend="reference", expected_acceptance=True)


@functools.cache  # the reference is slow, and the same for every instruction set
def known_case(seed: int, vocab: int, batch: int, dtype: torch.dtype, kind: str) -> tuple[Case, VerifyOutput]:
    case = random_case(seed, vocab, batch, dtype, kind)
    return case, reference(case)


def disagreements(case: Case, a: VerifyOutput | None = None) -> int:
    """Requests with another token; everything that is not a draw must agree closely wherever the draws do."""
    a = a or reference(case)
    b = verify(case.target, case.draft, case.sampling, backend="cpu", expected_acceptance=True)
    torch.testing.assert_close(a.expected_acceptance, b.expected_acceptance, atol=1e-6, rtol=1e-6)
    differ = (a.token_ids != b.token_ids).any(1)
    if not differ.any():
        close = {"atol": 1e-6, "rtol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(a.acceptance_probability, b.acceptance_probability, **close)
        assert torch.equal(a.num_accepted, b.num_accepted)
    return int(differ.sum())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_mixed_batches(isa: str, kind: str, dtype: torch.dtype):
    sizes = [(7, 100), (100, 60), (511, 20), (513, 20), (1024, 40), (4099, 8)]
    cases = [known_case(seed, v, b, dtype, kind) for seed, (v, b) in enumerate(sizes)]
    assert sum(disagreements(*case) for case in cases) <= ALLOWED * sum(b for _, b in sizes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocab", "batch", "dtype"), [(32001, 6, torch.float32), (151936, 2, torch.bfloat16)])
def test_large_vocabularies(vocab: int, batch: int, dtype: torch.dtype, kind: str):
    """Two threads; rounded logits bring thousands of ties."""
    torch.set_num_threads(2)
    assert disagreements(random_case(3, vocab, batch, dtype, kind, n_max=2)) == 0


@pytest.mark.parametrize("scale", [0.0, 0.01, 30.0, 3000.0])
def test_flat_and_saturated_rows(isa: str, scale: float):
    """Flat rows: all tied, exp sums of equal terms. Saturated: weights underflow, p - q is mostly rounding."""
    for kind in KINDS:
        assert disagreements(random_case(5, 1000, 20, torch.float32, kind, scale=scale)) == 0


@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(1, 40),
    counts=st.lists(st.integers(0, 5), max_size=6),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape(seed: int, vocab: int, counts: list[int], kind: str, dtype: torch.dtype):
    assert disagreements(random_case(seed, vocab, len(counts), dtype, kind, counts=counts)) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sample_draft(isa: str, dtype: torch.dtype):
    for seed, vocab in enumerate([1, 7, 129, 1024, 5003]):
        case = random_case(seed, vocab, 50, dtype)
        logits = case.target[: len(case.sampling)]
        a_tokens, a_stats = sample_draft(logits, case.sampling, 2, backend="reference")
        b_tokens, b_stats = sample_draft(logits, case.sampling, 2, backend="cpu")
        assert torch.equal(a_tokens, b_tokens)
        torch.testing.assert_close(a_stats, b_stats, atol=1e-12, rtol=1e-12)


def test_special_float16_values(isa: str):
    """Subnormals and -inf take another path through the widening."""
    row = torch.tensor([[6e-8, 3e-5, -6e-8, 0.0, -0.0, -torch.inf, 65504.0 / 1e4, 1.0, -2.0]], dtype=torch.float16)
    case = random_case(0, 9, 1, torch.float16, counts=[1])
    for target in (row, -row.nan_to_num(neginf=-5)):
        full = target.repeat(2, 1)
        assert disagreements(Case(full, case.draft, case.sampling)) == 0
        _, a = sample_draft(target, case.sampling, 0, backend="reference")
        _, b = sample_draft(target, case.sampling, 0, backend="cpu")
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_unknown_instruction_set():
    with pytest.raises(SpecdecError, match=r"'sse9'.*use auto, scalar, avx2 or avx512"):
        cpu.select_isa("sse9")
