"""The triton kernels against the reference: on the GPU, or in the interpreter where there is none.

Tolerance: weights are float32 exponentials, so sums err by about 1e-7 of themselves. Design bound: other tokens in at
most 0.05 % of requests; there are far fewer requests here, so none.
"""

import math

import pytest
import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, reference, triton
from specdec.verify.backends import choose
from tests.helpers.cases import Case, random_case
from tests.kernels.every_backend import CLOSE, DTYPES, KINDS, METHODS, check
from tests.kernels.subject import Subject, as_input, run
from tests.verify.test_backends_agree import damaged
from tests.verify.test_randomness import alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_mixed_batches(subject: Subject, method: str, kind: str):
    """A vocabulary smaller than a tile, and one just above a tile or of several groups of tiles; one dtype each."""
    larger = (513, [2], DTYPES[1]) if method == "token" else (4200, [2], DTYPES[2])
    for seed, (vocab, counts, dtype) in enumerate([(7, [2, 0, 1], DTYPES[0]), larger]):
        check(subject, random_case(seed, vocab, len(counts), dtype, kind, counts=counts), method, skips=vocab > 7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_damaged_drafts(subject: Subject, method: str, kind: str):
    check(subject, damaged(random_case(3, 600, 3, kind=kind, counts=[3, 2, 2]), 3), method)


@pytest.mark.parametrize(("kind", "method"), [("stats", "block"), ("logits", "token")])
def test_a_large_vocabulary(subject: Subject, kind: str, method: str):
    """Rounded logits bring thousands of ties."""
    sampling = SamplingBatch.uniform(1, temperature=0.8, top_k=50, top_p=0.95, seed=3)
    check(subject, random_case(3, 151_936, 1, torch.bfloat16, kind, counts=[2], sampling=sampling), method)


@pytest.mark.parametrize("scale", [0.0, 0.01, 30.0, 3000.0])
def test_flat_and_saturated_rows(subject: Subject, scale: float):
    """Flat rows: all tied. Saturated: weights underflow, p - q is mostly rounding."""
    for seed, (kind, method) in enumerate([("stats", "block"), ("logits", "token"), ("one-hot", "token")]):
        check(subject, random_case(seed, 1500, 1, kind=kind, counts=[2 - seed % 2], scale=scale), method)


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("top_k", [0, 5, 2900])
def test_more_tokens_survive_than_fit_into_registers(subject: Subject, scale: float, top_k: int):
    """The search for the threshold then reads the row several times; and k may be larger than the number of tiles."""
    for top_p, dtype in ((0.3, torch.float32), (0.999, torch.bfloat16)):
        sampling = SamplingBatch.uniform(1, top_k=top_k, top_p=top_p, min_p=0.0 if top_k else 0.01, seed=4)
        logits = random_case(6, 3001, 1, dtype, counts=[0], sampling=sampling, scale=scale).target
        check_samples(subject, logits, sampling)


@pytest.mark.parametrize("method", METHODS)
def test_draft_rows_equal_to_the_target(subject: Subject, method: str):
    """Residual masses of rounding errors alone, divided by one another."""
    case = random_case(1, 600, 1, sampling=SamplingBatch.uniform(1, seed=1), counts=[3])
    rows = case.target[:3]
    tokens, stats = reference.sample_draft(rows, case.sampling.rows(torch.tensor([0, 0, 0])), 0, "raise")
    for row_stats in (stats, None):
        out = check(subject, Case(case.target, Draft(tokens, [3], rows, row_stats), case.sampling), method)
        assert out.num_accepted.tolist() == [3]


def check_samples(subject: Subject, logits: Tensor, sampling: SamplingBatch) -> None:
    tokens, stats = subject.sample_draft(logits, sampling, 2, "raise")
    known_tokens, known = reference.sample_draft(logits, sampling, 2, "raise")
    assert torch.equal(tokens, known_tokens)
    exact = [0, 1, 3]  # temperature, threshold, sampled logit; a threshold of min-p is a logarithm
    torch.testing.assert_close(stats[:, exact], known[:, exact], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(stats[:, 2], known[:, 2], **CLOSE)


@pytest.mark.parametrize(("vocab", "dtype"), [(1, DTYPES[0]), (7, DTYPES[1]), (513, DTYPES[2]), (3001, DTYPES[0])])
def test_sample_draft(subject: Subject, vocab: int, dtype: torch.dtype):
    case = random_case(vocab, vocab, 4, dtype, counts=[0] * 4)
    check_samples(subject, case.target, case.sampling)


def test_special_float16_values(subject: Subject):
    """Subnormals, zeros of both signs and -inf; thresholds on them."""
    row = torch.tensor([[6e-8, 3e-5, -6e-8, 0.0, -0.0, -torch.inf, 65504.0 / 1e4, 1.0, -2.0]], dtype=torch.float16)
    for target in (row, -row.nan_to_num(neginf=-5)):
        for k in (0, 1, 4, 6, 8):
            check_samples(subject, target, SamplingBatch.uniform(1, top_k=k, seed=k))


@pytest.mark.parametrize("method", METHODS)
def test_repaired_rows(subject: Subject, method: str):
    """What the reference makes of rows that are no distribution; nothing of the kind leaves an id outside [0, V)."""
    case = random_case(2, 700, 3, counts=[2, 3, 1])
    case.target[1, 600:] = math.nan
    case.target[4] = -math.inf
    case.target[6, 3] = math.inf
    known, out = (run(backend, case, method, True, "repair") for backend in (reference, subject))
    assert torch.equal(out.token_ids, known.token_ids)
    assert torch.equal(out.bad_row, known.bad_row)
    torch.testing.assert_close(out.expected_acceptance, known.expected_acceptance, **CLOSE)


def test_unchecked_parameters_do_no_harm(subject: Subject):
    """Under "repair" nobody looks at them: a token of the vocabulary comes out, and the neighbour never notices."""
    wild = {"temperature": [math.nan, math.inf, -1.0], "top_p": [0.0, math.nan, -2.0], "min_p": [math.nan, 3.0, -1.0]}
    sampling = SamplingBatch.uniform(10, top_k=40, top_p=0.9, min_p=0.01, seed=5)
    case = random_case(5, 700, 10, counts=[1, 0, 0] * 3 + [1], sampling=sampling)
    neighbour = alone(case, 9)
    for i, (name, values) in enumerate(wild.items()):
        getattr(sampling, name)[3 * i : 3 * i + 3] = torch.tensor(values)
    out = run(subject, case, "token", False, "repair")
    assert ((out.token_ids >= -1) & (out.token_ids < 700)).all() and (out.token_ids[:, 0] >= 0).all()
    assert torch.equal(out.token_ids[9:], run(subject, neighbour, "token", False, "repair").token_ids)


def test_scratch_is_below_5_percent_of_the_target():
    target = torch.empty(32, 151_936, dtype=torch.bfloat16, device="meta")
    rows, sampling = torch.empty(0, device="meta"), SamplingBatch.uniform(8)
    for slots, share in ((32, 0.03), (32 + 24, 0.05)):
        plan = triton._Plan.of(target, rows, rows, sampling, slots)
        scratch = [plan.tile_max, plan.tile_sum, plan.group_bad, plan.facts, plan.scratch]
        assert sum(t.nbytes for t in scratch) < share * target.nbytes


def test_auto_never_chooses_the_interpreter():
    assert choose("auto", torch.device("cpu")).__name__ != "specdec.verify.triton"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("method", METHODS)
def test_repair_does_not_wait_for_the_gpu(subject: Subject, method: str):
    case = random_case(4, 5003, 4)
    step = subject.moved(as_input(case, False, "repair"))
    function = getattr(triton, f"verify_{method}")
    function(step)  # compiles
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        function(step)
    finally:
        torch.cuda.set_sync_debug_mode(before)
