"""The block rule, exactly: its output law by enumeration, cases worked by hand, and where the token rule stands in."""

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from specdec.errors import BadLogitsError
from specdec.sampling import ACCEPT, BONUS, RECOVER, SamplingBatch
from specdec.verify import Draft, VerifyOutput, api, verify
from specdec.verify.block import block, residual
from specdec.verify.reference import DraftToken, block_rule, probabilities
from tests.helpers.cases import Case, random_case
from tests.helpers.worked import log, once_per_seed, u

Residual = Callable[[Tensor, Tensor, float], Tensor]


# Law of the output: target[k] [V] * (k + 1) float64, token k given the k before; head likewise.


def random_rows(seed: int, vocab: int, depth: int, **filters: float) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    rows = []
    for k in range(depth):
        logits = torch.randn(vocab**k, vocab, generator=g) * 1.5
        rows.append(probabilities(logits, SamplingBatch.uniform(vocab**k, **filters)).view([vocab] * (k + 1)))
    return rows


def joint(target: list[Tensor]) -> Tensor:
    """The law of as many tokens as there are tables."""
    law = target[0]
    for rows in target[1:]:
        law = law[..., None] * rows
    return law


def rows_of(tables: list[Tensor], x: tuple[int, ...]) -> Tensor:
    return torch.stack([rows[x[:k]] for k, rows in enumerate(tables)])


def blocks(target: list[Tensor], head: list[Tensor]):
    """Every draft block that the head can draw: (tokens, its probability, p rows, q rows)."""
    vocab, n = target[0].shape[0], len(head)
    law = joint(head)
    for x in itertools.product(range(vocab), repeat=n):
        if law[x] > 0:
            yield x, float(law[x]), rows_of(target, x), rows_of(head, x)


def last_token_law(p: Tensor, q: Tensor, weight: list[float], tau: int, residual: Residual = residual) -> Tensor:
    rest = residual(p[tau], q[tau], weight[tau]) if tau < len(q) else p[tau]
    return rest / rest.sum() if rest.sum() > 0 else p[tau]


def output_law(target: list[Tensor], head: list[Tensor], residual: Residual = residual) -> Tensor:
    """Law of the first n + 1 tokens: what one step emits, filled up with the target's own continuation."""
    law = torch.zeros_like(joint(target))
    for x, probability, p, q in blocks(target, head):
        found = block(p, q, x, q[range(len(x)), x].tolist())
        reach = [*found.reach, 0.0]
        for tau in range(len(x) + 1):
            emitted = last_token_law(p, q, found.weight, tau, residual)
            for rows in target[tau + 1 :]:
                emitted = emitted[..., None] * rows[x[:tau]]
            law[x[:tau]] += probability * (reach[tau] - reach[tau + 1]) * emitted
    return law


LAWS: dict[str, Callable[[], tuple[list[Tensor], list[Tensor]]]] = {
    "two drafts": lambda: (random_rows(0, 4, 3), random_rows(1, 4, 2)),
    "three drafts": lambda: (random_rows(2, 3, 4), random_rows(3, 3, 3)),
    "one draft": lambda: (random_rows(4, 4, 2), random_rows(5, 4, 1)),
    "target filtered": lambda: (random_rows(6, 4, 4, top_k=2), random_rows(7, 4, 3)),
    "both filtered": lambda: (random_rows(8, 4, 4, top_p=0.7), random_rows(9, 4, 3, top_p=0.8)),
    "equal": lambda: (random_rows(10, 3, 4), random_rows(10, 3, 3)),
    "first row equal": lambda: (random_rows(11, 3, 4), random_rows(11, 3, 1) + random_rows(12, 3, 3)[1:]),
    "target certain": lambda: (random_rows(13, 3, 4, top_k=1), random_rows(14, 3, 3)),
    "head certain": lambda: (random_rows(15, 3, 4), random_rows(16, 3, 3, top_k=1)),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_output_follows_the_target(name: str):
    target, head = LAWS[name]()
    torch.testing.assert_close(output_law(target, head), joint(target), atol=1e-12, rtol=0)


def test_the_enumeration_sees_a_wrong_residual():
    """max(P - Q, 0) in the place of max(w P - Q, 0), the mistake that is easy to make."""
    target, head = LAWS["three drafts"]()
    law = output_law(target, head, lambda p, q, w: residual(p, q, 1.0))
    assert (law - joint(target)).abs().max() > 1e-4


@pytest.mark.parametrize("name", LAWS)
def test_the_rule_does_what_was_enumerated(name: str):
    """block_rule with chosen uniforms: each tau at the middle of its interval, each token at that of its own."""
    target, head = LAWS[name]()
    for x, _, p, q in blocks(target, head):
        n, qx = len(x), q[range(len(x)), x].tolist()
        if n < 2:
            continue
        found = block(p, q, x, qx)
        reach = [*found.reach, 0.0]
        drafts = [DraftToken(t, row, v, sampled=True) for t, row, v in zip(x, q, qx, strict=True)]
        for tau in range(n + 1):
            if reach[tau] - reach[tau + 1] < 1e-9:
                continue
            law = last_token_law(p, q, found.weight, tau)
            use = (n, BONUS) if tau == n else (tau, RECOVER)
            for token in (law > 1e-9).nonzero()[:, 0].tolist():
                numbers = {
                    (0, ACCEPT): (reach[tau] + reach[tau + 1]) / 2,
                    use: float(law[:token].sum() + law[token] / 2),
                }
                verdict = block_rule(
                    p, drafts, lambda at, purpose, u=numbers: torch.tensor([u[at, purpose]], dtype=torch.float64)
                )
                assert (verdict.accepted, int(verdict.last)) == (tau, token)


@pytest.mark.parametrize("error", [0.0, 1e-13, -1e-13])
def test_rounding_errors_do_not_decide(error: float):
    """w_1 = 1 and P_1 = Q_1 but for rounding, and then a token that q never draws: h_1 = 0 / 0 must not be noise."""
    p = torch.tensor([[0.5, 0.5], [1, 0], [0.5, 0.5]], dtype=torch.float64)
    q = torch.tensor([[0.5 - error, 0.5], [1 + error, 1e-13]], dtype=torch.float64)
    for q0 in (0.5, 0.5 + 1e-13):
        assert block(p, q, [0, 1], [q0, 1e-13]).reach == pytest.approx([1, 1, 0])


def expected_accepted(target: list[Tensor], head: list[Tensor]) -> tuple[float, float]:
    """Block rule, token rule."""
    by_block = by_token = 0.0
    for x, probability, p, q in blocks(target, head):
        qx = q[range(len(x)), x].tolist()
        by_block += probability * sum(block(p, q, x, qx).reach[1:])
        ratios = torch.tensor([min(1, float(p[i, t]) / qx[i]) for i, t in enumerate(x)])
        by_token += probability * float(ratios.cumprod(0).sum())
    return by_block, by_token


def test_expected_number_of_accepted_drafts():
    """The example of the paper's introduction: 11/9 instead of 10/9."""
    p, q = torch.tensor([1, 2], dtype=torch.float64) / 3, torch.tensor([2, 1], dtype=torch.float64) / 3
    assert expected_accepted([p, p.expand(2, 2), p.expand(2, 2, 2)], [q, q.expand(2, 2)]) == pytest.approx(
        (11 / 9, 10 / 9)
    )


@pytest.mark.parametrize("name", LAWS)
def test_never_fewer_accepted_than_by_the_token_rule(name: str):
    by_block, by_token = expected_accepted(*LAWS[name]())
    assert by_block >= by_token - 1e-12


# Worked by hand, on every backend.


def test_three_outcomes_of_one_block(backend: str):
    # w_1 = .2/.4; .5 P_1 - Q_1 = (.05, .1, <0), so S_1 = .15, h_1 = .15/.65 = 3/13; w_2 = .5 * .1/.7 = 1/14 = h_2.
    # T_2 = 1/14, T_1 = 1/14 + 3/13 * 13/14 = 2/7. The token rule would recover from (.3, .3, 0) behind one draft.
    p, q = log([0.2, 0.5, 0.3], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1]), log([0.4, 0.3, 0.3], [0.2, 0.1, 0.7])
    out = once_per_seed(backend, p, [0, 2], q, "block")
    probability, alpha = out.acceptance_probability.view(-1, 2).tolist(), out.expected_acceptance.view(-1, 2).tolist()
    for b, (number, recover, bonus) in enumerate(zip(u(0, ACCEPT), u(1, RECOVER), u(2, BONUS), strict=True)):
        if number < 1 / 14:
            tokens = [0, 2, 0 if bonus < 0.6 else 1 if bonus < 0.9 else 2]
        elif number < 2 / 7:
            tokens = [0, 0 if recover < 1 / 3 else 1, -1]
        else:
            tokens = [1, -1, -1]  # max(P_0 - Q_0, 0) = (0, .2, 0)
        accepted = sum(t >= 0 for t in tokens) - 1
        assert (out.token_ids[b].tolist(), out.num_accepted[b]) == (tokens, accepted)
        assert probability[b] == pytest.approx([2 / 7, 1 / 4] if accepted else [2 / 7, math.nan], nan_ok=True)
        assert alpha[b] == pytest.approx([0.8, 0.4])
    assert set(out.num_accepted.tolist()) == {0, 1, 2}


def test_a_weak_draft_is_made_up_for_by_the_next(backend: str):
    # w = 1/2, then min(1, 1/2 * 2) = 1: both are accepted always, where the token rule rejects the first half the time.
    p, q = log([1 / 3, 2 / 3]).repeat(3, 1), log([2 / 3, 1 / 3]).repeat(2, 1)
    out = once_per_seed(backend, p, [0, 1], q, "block")
    assert (out.num_accepted == 2).all()
    torch.testing.assert_close(out.acceptance_probability, torch.ones_like(out.acceptance_probability))


def test_nothing_behind_a_draft_of_probability_zero_is_accepted(backend: str):
    p, q = log([0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]), log([0.2, 0.2, 0.6], [0.4, 0.4, 0.2])
    out = once_per_seed(backend, p, [2, 2], q, "block")
    assert (out.num_accepted == 0).all() and set(out.token_ids[:, 0].tolist()) <= {0, 1}
    for probability in out.acceptance_probability.view(-1, 2).tolist():
        assert probability == pytest.approx([0, math.nan], nan_ok=True)
    torch.testing.assert_close(out.expected_acceptance, torch.full_like(out.expected_acceptance, 0.4))


def test_equal_rows_accept_everything(backend: str):
    row = torch.randn(1, 1500, generator=torch.Generator().manual_seed(0))
    out = once_per_seed(backend, row.repeat(4, 1), [3, 1, 700], row.repeat(3, 1), "block")
    assert (out.num_accepted == 3).all()


# Where the token rule stands in.


def both(case: Case, backend: str) -> tuple[VerifyOutput, VerifyOutput]:
    """(block, token)"""
    arguments = {"backend": backend, "expected_acceptance": True}
    return (
        verify(case.target, case.draft, case.sampling, method="block", **arguments),
        verify(case.target, case.draft, case.sampling, method="token", **arguments),
    )


def same(a: VerifyOutput, b: VerifyOutput) -> bool:
    return all(
        torch.equal(x.nan_to_num(nan=-1), y.nan_to_num(nan=-1))
        for x, y in (
            (a.token_ids, b.token_ids),
            (a.num_accepted, b.num_accepted),
            (a.expected_acceptance, b.expected_acceptance),
            (a.acceptance_probability, b.acceptance_probability),
        )
    )


@pytest.mark.parametrize("kind", ["stats", "logits"])
def test_one_draft_or_none_is_the_token_rule(backend: str, kind: str):
    assert same(*both(random_case(1, 130, 3, kind=kind, counts=[1, 0, 1]), backend))


def test_a_greedy_request_is_the_token_rule(backend: str):
    sampling = SamplingBatch.uniform(4, temperature=0.0, seed=3)
    assert same(*both(random_case(2, 60, 4, sampling=sampling, counts=[2, 3, 0, 2]), backend))


def test_one_hot_drafts_are_the_token_rule_and_said_so_once(backend: str):
    case = random_case(3, 60, 2, kind="one-hot", counts=[0, 3])
    api._warn_one_hot.cache_clear()
    with pytest.warns(UserWarning, match="no effect on one-hot drafts") as said:
        a, b = both(case, backend)
    assert said[0].filename == __file__
    assert same(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verify(case.target, case.draft, case.sampling, method="block", backend=backend)


def test_a_step_without_drafts_says_nothing(backend: str):
    """As the first step of every request."""
    api._warn_one_hot.cache_clear()
    nothing = Draft(torch.empty(0, dtype=torch.int32), [0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verify(log([0.5, 0.5], [0.1, 0.9]), nothing, SamplingBatch.uniform(2), method="block", backend=backend)


DAMAGE: dict[str, Callable[[Draft, int], None]] = {
    "id below the vocabulary": lambda d, i: d.token_ids.__setitem__(i, -1),
    "id above the vocabulary": lambda d, i: d.token_ids.__setitem__(i, 40),
    "point mass": lambda d, i: d.row_stats.__setitem__((i, 0), 0.0),
    "no distribution": lambda d, i: d.row_stats.__setitem__(i, math.nan),
    "broken row": lambda d, i: (d.logits.__setitem__(i, math.nan), setattr(d, "row_stats", None)),
}


@pytest.mark.parametrize("damaged", [0, 1, 2])
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_draft_that_is_no_sample_sends_its_request_alone_to_the_token_rule(backend: str, damage: str, damaged: int):
    batch, request = 8, 5
    case = random_case(4, 40, batch, sampling=SamplingBatch.uniform(batch, seed=8), counts=[3] * batch)
    if damage == "broken row":
        case.draft.row_stats = None
    whole, _ = both(case, backend)
    DAMAGE[damage](case.draft, 3 * request + damaged)
    by_block, by_token = both(case, backend)
    others = torch.arange(batch) != request
    assert torch.equal(by_block.token_ids[others], whole.token_ids[others])
    assert not torch.equal(by_block.token_ids[others], by_token.token_ids[others])
    rows = slice(3 * request, 3 * request + 3)
    assert torch.equal(by_block.token_ids[request], by_token.token_ids[request])
    for name in ("acceptance_probability", "expected_acceptance"):
        a, b = getattr(by_block, name)[rows], getattr(by_token, name)[rows]
        torch.testing.assert_close(a, b, atol=0, rtol=0, equal_nan=True)


# What holds for the token rule holds here.


@pytest.mark.parametrize("row", range(8))
@pytest.mark.parametrize("impossible", [False, True])
def test_bad_target_row_names_itself(backend: str, row: int, impossible: bool):
    """Any row counts, reached or not, and behind a draft that cannot be accepted."""
    case = random_case(1, 600, 2, counts=[3, 3], sampling=SamplingBatch.uniform(2))
    if impossible:
        for first, at in ((0, 0), (3, 4)):  # the first draft of each request, and its target row
            case.target[at, case.draft.token_ids[first].long()] = -math.inf
    case.target[row, 599] = math.nan
    with pytest.raises(BadLogitsError, match=f"Row {row} of the target logits") as error:
        verify(case.target, case.draft, case.sampling, method="block", backend=backend)
    assert error.value.request == row // 4


def test_the_batch_and_the_layout_do_not_matter(backend: str):
    case = random_case(6, 700, 12, torch.bfloat16)
    before = [t.clone() for t in (case.target, case.draft.logits, case.draft.token_ids, case.draft.row_stats)]
    together, _ = both(case, backend)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before, (case.target, case.draft.logits, case.draft.token_ids, case.draft.row_stats), strict=True
        )
    )
    wide = torch.nn.functional.pad(case.draft.logits, (5, 9), value=math.nan)[:, 5:705]
    counts, first = case.draft.counts(), 0
    for b, n in enumerate(counts):
        rows = slice(first, first + n)
        draft = Draft(case.draft.token_ids[rows].long(), [n], wide[rows], case.draft.row_stats[rows])
        sampling = case.sampling.rows(torch.tensor([b]))
        target = case.target[first + b : first + b + n + 1]
        alone = verify(target.T.contiguous().T, draft, sampling, method="block", backend=backend)
        assert alone.token_ids[0].tolist() == together.token_ids[b, : n + 1].tolist()
        assert (together.token_ids[b, n + 1 :] == -1).all()
        first += n
