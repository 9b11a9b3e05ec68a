"""The triton kernels against the reference: on the GPU, or in the interpreter where there is none.

Tolerance: weights are float32 exponentials, so sums err by about 1e-7 of themselves. Design bound: other tokens in at
most 0.05 % of requests; there are far fewer requests here, so none.
"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, reference, triton
from specdec.verify.backends import choose
from tests.helpers.cases import Case, random_case
from tests.kernels.subject import Subject, as_input, run
from tests.verify.test_backends_agree import damaged

METHODS = ["token", "block"]
KINDS = ["stats", "logits", "one-hot"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


def check(subject: Subject, case: Case, method: str, skips: bool = False) -> None:
    """The same tokens, and everything that is not a draw closely. skips: also where rows may be left unread."""
    known = run(reference, case, method, True)
    out = run(subject, case, method, True)
    assert torch.equal(out.token_ids, known.token_ids)
    assert torch.equal(out.num_accepted, known.num_accepted)
    torch.testing.assert_close(out.expected_acceptance, known.expected_acceptance, **CLOSE)
    torch.testing.assert_close(out.acceptance_probability, known.acceptance_probability, **CLOSE, equal_nan=True)
    if skips:
        assert torch.equal(out.token_ids, run(subject, case, method, False).token_ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_mixed_batches(subject: Subject, method: str, kind: str):
    """A vocabulary smaller than a tile, one just above a tile, one of several groups of tiles; one dtype each."""
    for seed, (vocab, batch) in enumerate([(7, 4), (513, 2), (4200, 1)]):
        check(subject, random_case(seed, vocab, batch, DTYPES[seed], kind, n_max=3), method, skips=batch < 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_damaged_drafts(subject: Subject, method: str, kind: str):
    check(subject, damaged(random_case(3, 600, 5, kind=kind, n_max=3), 3), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["stats", "logits"])
def test_a_large_vocabulary(subject: Subject, method: str, kind: str):
    """Rounded logits bring thousands of ties."""
    sampling = SamplingBatch.uniform(1, temperature=0.8, top_k=50, top_p=0.95, seed=3)
    check(subject, random_case(3, 151_936, 1, torch.bfloat16, kind, counts=[2], sampling=sampling), method)


@pytest.mark.parametrize("scale", [0.0, 0.01, 30.0, 3000.0])
def test_flat_and_saturated_rows(subject: Subject, scale: float):
    """Flat rows: all tied. Saturated: weights underflow, p - q is mostly rounding."""
    for seed, kind in enumerate(KINDS):
        check(subject, random_case(seed, 1500, 2, kind=kind, counts=[2, 1], scale=scale), METHODS[seed % 2])


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("top_k", [0, 5, 2900])
def test_more_tokens_survive_than_fit_into_registers(subject: Subject, scale: float, top_k: int):
    """The search for the threshold then reads the row several times; and k may be larger than the number of tiles."""
    for top_p, dtype in ((0.3, torch.float32), (0.999, torch.bfloat16)):
        sampling = SamplingBatch.uniform(1, top_k=top_k, top_p=top_p, min_p=0.0 if top_k else 0.01, seed=4)
        logits = random_case(6, 3001, 1, dtype, counts=[0], sampling=sampling, scale=scale).target
        check_samples(subject, logits, sampling)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    method=st.sampled_from(METHODS),
    vocab=st.integers(1, 40),
    counts=st.lists(st.integers(0, 5), max_size=3),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    damage=st.booleans(),
)
def test_any_shape(
    subject: Subject,
    seed: int,
    method: str,
    vocab: int,
    counts: list[int],
    kind: str,
    dtype: torch.dtype,
    damage: bool,
):
    case = random_case(seed, vocab, len(counts), dtype, kind, counts=counts)
    check(subject, damaged(case, seed) if damage else case, method)


@pytest.mark.parametrize("method", METHODS)
def test_draft_rows_equal_to_the_target(subject: Subject, method: str):
    """Residual masses of rounding errors alone, divided by one another."""
    case = random_case(1, 600, 2, sampling=SamplingBatch.uniform(2, seed=1), counts=[3, 3])
    rows = case.target.view(2, 4, -1)[:, :3].flatten(0, 1)
    each = case.sampling.rows(torch.arange(2).repeat_interleave(3))
    tokens, stats = reference.sample_draft(rows, each, 0, "raise")
    for row_stats in (stats, None):
        same = Case(case.target, Draft(tokens, [3, 3], rows, row_stats), case.sampling)
        assert run(subject, same, method, False).num_accepted.tolist() == [3, 3]
        check(subject, same, method)


def check_samples(subject: Subject, logits: Tensor, sampling: SamplingBatch) -> None:
    tokens, stats = subject.sample_draft(logits, sampling, 2, "raise")
    known_tokens, known = reference.sample_draft(logits, sampling, 2, "raise")
    assert torch.equal(tokens, known_tokens)
    exact = [0, 1, 3]  # temperature, threshold, sampled logit; a threshold of min-p is a logarithm
    torch.testing.assert_close(stats[:, exact], known[:, exact], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(stats[:, 2], known[:, 2], **CLOSE)


@pytest.mark.parametrize(("vocab", "dtype"), [(1, DTYPES[0]), (7, DTYPES[1]), (513, DTYPES[2]), (3001, DTYPES[0])])
def test_sample_draft(subject: Subject, vocab: int, dtype: torch.dtype):
    case = random_case(vocab, vocab, 6, dtype, counts=[0] * 6)
    check_samples(subject, case.target, case.sampling)


def test_special_float16_values(subject: Subject):
    """Subnormals, zeros of both signs and -inf; thresholds on them."""
    row = torch.tensor([[6e-8, 3e-5, -6e-8, 0.0, -0.0, -torch.inf, 65504.0 / 1e4, 1.0, -2.0]], dtype=torch.float16)
    for target in (row, -row.nan_to_num(neginf=-5)):
        for k in range(10):
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


@pytest.mark.parametrize(
    ("name", "values"),
    [("temperature", [math.nan, math.inf, -1.0]), ("top_p", [0.0, math.nan, -2.0]), ("min_p", [math.nan, 3.0, -1.0])],
)
def test_unchecked_parameters_do_no_harm(subject: Subject, name: str, values: list[float]):
    """Under "repair" nobody looks at them: a token of the vocabulary comes out, and the neighbour never notices."""
    sampling = SamplingBatch.uniform(4, top_k=40, top_p=0.9, min_p=0.01, seed=5)
    case = random_case(5, 700, 4, counts=[1, 0, 1, 0], sampling=sampling)
    good = run(subject, case, "token", False, "repair")
    getattr(sampling, name)[:3] = torch.tensor(values)
    out = run(subject, case, "token", False, "repair")
    assert ((out.token_ids >= -1) & (out.token_ids < 700)).all() and (out.token_ids[:, 0] >= 0).all()
    assert torch.equal(out.token_ids[3], good.token_ids[3])


def test_strided_rows(subject: Subject):
    case = random_case(3, 130, 3, torch.bfloat16, counts=[1, 0, 2])
    plain = run(subject, case, "token", False)

    def padded(t: Tensor) -> Tensor:
        return torch.nn.functional.pad(t, (3, 11), value=math.nan)[:, 3 : 3 + t.shape[1]]

    padded_case = replace(case, target=padded(case.target), draft=replace(case.draft, logits=padded(case.draft.logits)))
    assert torch.equal(run(subject, padded_case, "token", False).token_ids, plain.token_ids)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_matrix_of_more_than_2_to_the_31_logits(subject: Subject):
    case = random_case(7, 50, 2, torch.bfloat16, counts=[1, 1])
    plain = run(subject, case, "token", False)
    stride = 2**30 + 3
    flat = torch.empty(3 * stride + 50, dtype=torch.bfloat16, device=subject.device)
    target = flat.as_strided((4, 50), (stride, 1)).copy_(case.target)
    out = triton.verify_token(replace(subject.moved(as_input(case, False)), target_logits=target))
    assert torch.equal(out.token_ids.cpu(), plain.token_ids)
