"""The CUDA kernels against the reference, split over blocks in every way, on the host and on a GPU where there is one.

Tolerance: both work in float64, and differ by rounding alone. Design bound: other tokens in at most 0.05 % of requests.
"""

import functools
import math

import pytest
import torch

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, reference
from tests.helpers.cases import Case, random_case
from tests.kernels import every_backend
from tests.kernels.every_backend import DTYPES, KINDS, METHODS
from tests.kernels.subject import Subject, run
from tests.verify.test_backends_agree import damaged

check = functools.partial(every_backend.check, skips=True)


@functools.cache  # the reference is slow, and the same for all ways to split a row
def known_case(
    method: str,
    seed: int,
    vocab: int,
    batch: int,
    dtype: torch.dtype,
    kind: str,
    counts: tuple[int, ...] | None = None,
    scale: float = 3.0,
) -> tuple[Case, VerifyOutput]:
    case = random_case(seed, vocab, batch, dtype, kind, counts=None if counts is None else list(counts), scale=scale)
    return case, run(reference, case, method)


def check_samples(subject: Subject, logits: torch.Tensor, sampling: SamplingBatch) -> None:
    tokens, stats = subject.sample_draft(logits, sampling, 2, "raise")
    known_tokens, known_stats = reference.sample_draft(logits, sampling, 2, "raise")
    assert torch.equal(tokens, known_tokens)
    torch.testing.assert_close(stats, known_stats, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_mixed_batches(subject: Subject, method: str, kind: str, dtype: torch.dtype):
    """Tests of the emulation cost by rows, hardly by tokens: few requests, others for every kind and dtype."""
    first_seed = 100 * KINDS.index(kind) + 10 * DTYPES.index(dtype)
    for seed, (vocab, batch) in enumerate([(7, 6), (1023, 3), (1025, 2), (4099, 2)], first_seed):
        case, known = known_case(method, seed, vocab, batch, dtype, kind)
        check(subject, case, method, known)


@pytest.mark.parametrize("kind", ["stats", "logits"])
@pytest.mark.parametrize(("vocab", "dtype"), [(32_001, torch.float32), (151_936, torch.bfloat16)])
def test_large_vocabularies(subject: Subject, vocab: int, dtype: torch.dtype, kind: str):
    """Rounded logits bring thousands of ties; 32,001 puts rows at addresses that are not aligned."""
    for method in METHODS:
        case, known = known_case(method, 3, vocab, 2, dtype, kind, (2, 0))
        check(subject, case, method, known)


@pytest.mark.parametrize("scale", [0.0, 0.01, 30.0, 3000.0])
def test_flat_and_saturated_rows(subject: Subject, scale: float):
    """Flat rows: all tied, and too many for a list. Saturated: weights underflow, p - q is mostly rounding."""
    for kind in KINDS:
        for method in METHODS:
            case, known = known_case(method, 5, 1500, 3, torch.float32, kind, scale=scale)
            check(subject, case, method, known)


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("top_k", [0, 45, 400, 4000])
def test_more_tokens_survive_than_a_list_holds(subject: Subject, scale: float, top_k: int):
    """And k may be larger than the number of threads, whose maxima then say nothing."""
    for top_p in (1.0, 0.3, 0.999):
        sampling = SamplingBatch.uniform(2, top_k=top_k, top_p=top_p, seed=4)
        case = random_case(6, 5011, 2, torch.float32, "logits", counts=[1, 0], sampling=sampling, scale=scale)
        check(subject, case, "token")
        check_samples(subject, case.target[:2], sampling)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_drafts(subject: Subject, kind: str):
    for seed, method in enumerate(METHODS):
        case = damaged(random_case(seed, 600, 6, torch.float32, kind), seed)
        check(subject, case, method)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_target_and_draft_of_different_types(subject: Subject, dtype: torch.dtype):
    """A float32 head beside a bfloat16 target: their rows differ in how they are aligned too."""
    for kind in ("stats", "logits"):
        case = random_case(7, 1029, 5, dtype, kind)
        for other in DTYPES:
            target = case.target.to(other)
            for method in METHODS:
                check(subject, Case(target, case.draft, case.sampling), method)


def test_more_drafts_than_bits_of_a_word(subject: Subject):
    """Rows that reject mark themselves in 32 bits."""
    case = random_case(8, 50, 3, counts=[40, 0, 33])
    for method in METHODS:
        check(subject, case, method)
    certain = Case(case.target, Draft(case.draft.token_ids, [40, 0, 33]), case.sampling)
    check(subject, certain, "token")


def test_draft_rows_equal_to_the_target(subject: Subject):
    """Residual masses of rounding errors alone, divided by one another."""
    case = random_case(1, 600, 6, torch.float32, sampling=SamplingBatch.uniform(6, seed=1), counts=[3] * 6)
    rows = case.target.view(6, 4, -1)[:, :3].flatten(0, 1)
    each = case.sampling.rows(torch.arange(6).repeat_interleave(3))
    each.position = torch.arange(18)
    tokens, stats = reference.sample_draft(rows, each, 0, "raise")
    for row_stats in (stats, None):
        same = Case(case.target, Draft(tokens, [3] * 6, rows, row_stats), case.sampling)
        for method in METHODS:
            known = run(reference, same, method)
            assert known.num_accepted.tolist() == [3] * 6
            check(subject, same, method, known)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sample_draft(subject: Subject, dtype: torch.dtype):
    for seed, vocab in enumerate([1, 7, 129, 1024, 5003]):
        case = random_case(seed, vocab, 12, dtype)
        check_samples(subject, case.target[:12], case.sampling)


def test_special_float16_values(subject: Subject):
    """Subnormals, -0 and -inf."""
    row = torch.tensor([[6e-8, 3e-5, -6e-8, 0.0, -0.0, -torch.inf, 65504.0 / 1e4, 1.0, -2.0]], dtype=torch.float16)
    for k in range(10):
        for target in (row, -row.nan_to_num(neginf=-5)):
            check_samples(subject, target, SamplingBatch.uniform(1, top_k=k, top_p=0.9, seed=k))


def test_numbers_at_the_ends_of_float32(subject: Subject):
    """min-p thresholds between two floats, and logits that no 16-bit type holds."""
    row = torch.tensor([[3.4e38, 3.3e38, -3.4e38, 1e-45, -1e-45, 0.0, -torch.inf]])
    for min_p in (0.0, 1e-30, 0.5, 1.0):
        for scale in (1.0, 1e-37):
            check_samples(subject, row * scale, SamplingBatch.uniform(1, min_p=min_p, top_p=0.99, seed=1))


def test_keys_up_to_the_largest_float32(subject: Subject):
    """Of -1.99, the lowest of the threads' maxima, to 3.4e38 is a range whose last bin of 2^24 keys ends beyond 2^32:
    with it wrapped around the search ended at 1.7e38, and kept all eight tokens above."""
    row = torch.full((1, 700), -1.99)
    row[0, :8] = torch.linspace(3.4, 1.8, 8) * 1e38  # all of them one thread's
    for top_k, top_p in ((3, 1.0), (6, 0.5), (0, 0.7)):
        check_samples(subject, row, SamplingBatch.uniform(1, 1e38, top_k=top_k, top_p=top_p, seed=1))


@pytest.mark.parametrize("largest", [[2.0, 1.5, 1.4921875], [-1.0, -1.5, -1.5078125]])
def test_min_p_between_two_bfloat16_numbers(subject: Subject, largest: list[float]):
    """The token just under min-p's threshold is not the third that top-k asks for, nor in the mass of top-p."""
    row = torch.full((1, 50), -9, dtype=torch.bfloat16)
    row[0, [3, 20, 40]] = torch.tensor(largest, dtype=torch.bfloat16)
    min_p = math.exp(-0.505)  # a threshold 0.505 under the maximum
    for top_k, top_p in ((0, 1.0), (3, 1.0), (4, 0.9), (0, 0.9)):
        check_samples(subject, row, SamplingBatch.uniform(1, min_p=min_p, top_k=top_k, top_p=top_p, seed=2))


def test_thresholds_between_two_floats(subject: Subject):
    """min-p's threshold is a float64; the float32 nearest to it may lie under it, and is then filtered."""
    seen = 0
    for min_p in torch.linspace(0.1, 0.9, 9):
        threshold = min_p.double().log()
        nearest = threshold.float()
        seen += int(nearest.double() < threshold)
        row = torch.tensor([[-4.0, 0.0, nearest, -5.0]])
        check_samples(subject, row, SamplingBatch.uniform(1, min_p=float(min_p), seed=3))
    assert seen >= 2


def test_rounding_errors_of_a_block_do_not_decide(subject: Subject):
    """w_1 = 1 and P_1 = Q_1 but for rounding, then a token that q hardly draws: h_1 is 0 / 0, and called 1."""
    head = torch.tensor([[0.0, 1.0, -60.0], [0.5, 0.0, -60.0]])
    target = torch.cat([head, head[:1]])
    target[1, 2] = -torch.inf
    log_sum_exp = head.double().logsumexp(-1) - torch.tensor([1e-13, 1e-12])
    tokens = torch.tensor([1, 2], dtype=torch.int32)
    stats = torch.stack([torch.ones(2), torch.full((2,), -torch.inf), log_sum_exp, head[[0, 1], tokens]], -1)
    for seed in range(5):
        case = Case(target, Draft(tokens, [2], head, stats.double()), SamplingBatch.uniform(1, seed=seed))
        known = run(reference, case, "block")
        assert known.num_accepted.item() == 1
        check(subject, case, "block", known)
