"""cpu against the reference, and its instruction sets against one another.

Tolerance: both work in float64, and differ by rounding alone. Design bound: other tokens in at most 0.05 % of requests.
"""

import functools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec.errors import SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, cpu, sample_draft, verify
from tests.helpers.cases import Case, random_case

ALLOWED = 0.0005
METHODS = ["token", "block"]
KINDS = ["stats", "logits", "one-hot"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


pytestmark = pytest.mark.filterwarnings("ignore:method='block' has no effect on one-hot drafts")


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        cpu.select_isa(request.param)
    except SpecdecError:
        pytest.skip(f"this machine cannot run {request.param}")
    assert cpu.isa() == request.param
    yield request.param
    cpu.select_isa("auto")


def reference(case: Case, method: str) -> VerifyOutput:
    return verify(case.target, case.draft, case.sampling, method=method, backend="reference", expected_acceptance=True)


@functools.cache  # the reference is slow, and the same for every instruction set
def known_case(
    method: str, seed: int, vocab: int, batch: int, dtype: torch.dtype, kind: str, scale: float = 3.0
) -> tuple[Case, str, VerifyOutput]:
    case = random_case(seed, vocab, batch, dtype, kind, scale=scale)
    return case, method, reference(case, method)


def disagreements(case: Case, method: str, a: VerifyOutput | None = None) -> int:
    """Requests with another token; everything that is not a draw must agree closely wherever the draws do."""
    a = a or reference(case, method)
    b = verify(case.target, case.draft, case.sampling, method=method, backend="cpu", expected_acceptance=True)
    c = verify(case.target, case.draft, case.sampling, method=method, backend="cpu")
    assert torch.equal(b.token_ids, c.token_ids)  # rows that nothing needs are skipped, and may be
    torch.testing.assert_close(a.expected_acceptance, b.expected_acceptance, atol=1e-6, rtol=1e-6)
    differ = (a.token_ids != b.token_ids).any(1)
    if not differ.any():
        close = {"atol": 1e-6, "rtol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(a.acceptance_probability, b.acceptance_probability, **close)
        assert torch.equal(a.num_accepted, b.num_accepted)
    return int(differ.sum())


def damaged(case: Case, seed: int) -> Case:
    """About a third of the drafts: ids that are no tokens, point masses, broken rows, statistics that say nothing."""
    g = torch.Generator().manual_seed(seed)
    draft, n, vocab = case.draft, case.draft.token_ids.shape[0], case.target.shape[1]
    for i in (torch.rand(n, generator=g) < 0.3).nonzero()[:, 0].tolist():
        what = int(torch.randint(0, 5, (), generator=g))
        if what == 0:
            draft.token_ids[i] = [-1, vocab, -(2**31), 2**31 - 1][i % 4]
        elif what == 1:  # any other token, which may have q = 0
            draft.token_ids[i] = int(torch.randint(0, vocab, (), generator=g))
        elif what == 2 and draft.logits is not None:
            draft.logits[i, int(torch.randint(0, vocab, (), generator=g))] = [math.nan, math.inf][i % 2]
        elif draft.row_stats is not None:
            draft.row_stats[i, [0, 2, 3][i % 3]] = 0.0 if what == 3 else [math.nan, math.inf][i % 2]
    return case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_mixed_batches(isa: str, method: str, kind: str, dtype: torch.dtype):
    sizes = [(7, 100), (100, 60), (511, 20), (513, 20), (1024, 12), (4099, 4)]
    cases = [known_case(method, seed, v, b, dtype, kind) for seed, (v, b) in enumerate(sizes)]
    assert sum(disagreements(*case) for case in cases) <= ALLOWED * sum(b for _, b in sizes)


@pytest.mark.parametrize(("method", "kind"), [("token", "logits"), ("token", "one-hot"), ("block", "stats")])
@pytest.mark.parametrize(("vocab", "batch", "dtype"), [(32001, 6, torch.float32), (151936, 2, torch.bfloat16)])
def test_large_vocabularies(method: str, vocab: int, batch: int, dtype: torch.dtype, kind: str):
    """Two threads; rounded logits bring thousands of ties."""
    torch.set_num_threads(2)
    assert disagreements(random_case(3, vocab, batch, dtype, kind, counts=[2] * batch), method) == 0


@pytest.mark.parametrize("scale", [0.0, 0.01, 30.0, 3000.0])
@pytest.mark.parametrize("method", METHODS)
def test_flat_and_saturated_rows(isa: str, method: str, scale: float):
    """Flat rows: all tied, exp sums of equal terms. Saturated: weights underflow, p - q is mostly rounding."""
    for kind in KINDS:
        assert disagreements(*known_case(method, 5, 1000, 20, torch.float32, kind, scale)) == 0


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("top_k", [0, 45, 4000, 11_000])
def test_more_tokens_survive_than_are_looked_at_one_by_one(scale: float, top_k: int):
    """Thresholds are then found by a histogram over the row; and k may be larger than the number of blocks."""
    for top_p in (1.0, 0.3, 0.999):
        sampling = SamplingBatch.uniform(3, top_k=top_k, top_p=top_p, seed=4)
        for kind in ("stats", "logits"):
            case = random_case(6, 20_011, 3, torch.float32, kind, counts=[1, 0, 1], sampling=sampling, scale=scale)
            assert disagreements(case, "token") == 0


@pytest.mark.parametrize("method", METHODS)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(1, 40),
    counts=st.lists(st.integers(0, 5), max_size=6),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    damage=st.booleans(),
)
def test_any_shape(method: str, seed: int, vocab: int, counts: list[int], kind: str, dtype: torch.dtype, damage: bool):
    case = random_case(seed, vocab, len(counts), dtype, kind, counts=counts)
    assert disagreements(damaged(case, seed) if damage else case, method) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_damaged_drafts(isa: str, method: str, kind: str):
    for seed in range(4):
        assert disagreements(damaged(random_case(seed, 600, 15, torch.float32, kind), seed), method) == 0


@pytest.mark.parametrize("method", METHODS)
def test_draft_rows_equal_to_the_target(isa: str, method: str):
    """Residual masses of rounding errors alone, divided by one another."""
    for seed in range(3):
        case = random_case(seed, 600, 10, torch.float32, sampling=SamplingBatch.uniform(10, seed=seed), counts=[3] * 10)
        rows = case.target.view(10, 4, -1)[:, :3].flatten(0, 1)
        each = case.sampling.rows(torch.arange(10).repeat_interleave(3))
        each.position = torch.arange(30)
        tokens, stats = sample_draft(rows, each, 0)
        for row_stats in (stats, None):
            same = Case(case.target, Draft(tokens, [3] * 10, rows, row_stats), case.sampling)
            known = reference(same, method)
            assert known.num_accepted.tolist() == [3] * 10
            assert disagreements(same, method, known) == 0


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
        assert disagreements(Case(full, case.draft, case.sampling), "token") == 0
        _, a = sample_draft(target, case.sampling, 0, backend="reference")
        _, b = sample_draft(target, case.sampling, 0, backend="cpu")
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_unknown_instruction_set():
    with pytest.raises(SpecdecError, match=r"'sse9'.*use auto, scalar, avx2 or avx512"):
        cpu.select_isa("sse9")
