"""The definition of verification, in PyTorch and float64. Slow; runs on every device.

Token verification (Leviathan et al., arXiv 2211.17192, algorithm 1). For draft token x at a position with target p and
draft q, both after temperature and filters: accept where u q(x) < p(x); at the first rejection draw from
normalise(max(p - q, 0)) and stop; after the last acceptance draw the bonus token from p. `<` and not `<=`: u may be 0,
and a token with p(x) = 0 must not be accepted.

Block verification: see block.py. A request with fewer than two drafts, for which both rules are one, or with a draft
that is no sample of a row (greedy request, point mass, broken row, id outside the vocabulary) is verified by the token
rule: with point masses the block rule accepts less.

Random numbers come from the request's Philox streams, one purpose per use; s is the position at which the step begins.
- Draft j of a step (counted from 0): at s, purpose draft_purpose(j). Not at s + j: the block rule has looked at the
  drafts behind the last accepted one, and the next step, which begins among their positions, must not draw from the
  same numbers again. Its output would be biased.
- Acceptance: token rule at s + j, block rule at s alone. Recovery: at s + accepted. Bonus: at s + n. The next step
  begins behind every one of these that was looked at.

Guards for input that no draft of ours produces; the output keeps the target's distribution in both:
- a token id outside [0, V), or a draft row that is no distribution: rejected, then drawn from p;
- a residual without mass (rounding where p and q are equal): drawn from p.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from specdec.sampling import (
    ACCEPT,
    BONUS,
    DRAFT,
    GREEDY_BELOW,
    RECOVER,
    SamplingBatch,
    inverse_cdf,
    philox_uniform,
    thresholds,
    weights,
)
from specdec.verify.block import block, clipped_ratio, residual
from specdec.verify.checks import check_rows, check_sampling, first_bad_rows, is_bad_row, repaired
from specdec.verify.types import (
    LOG_SUM_EXP,
    SAMPLED_LOGIT,
    TEMPERATURE,
    THRESHOLD,
    Draft,
    OnBadRow,
    VerifyInput,
    VerifyOutput,
)


class DraftToken(NamedTuple):
    token: int
    q: Tensor | None  # float64 [V]; None: the id is no token, or its row no distribution
    probability: float  # q(token); 0 without q
    sampled: bool  # q is a row, not a point mass


class Verdict(NamedTuple):
    accepted: int
    last: Tensor  # the recovered or bonus token
    probability: list[float]  # of accepting each draft that was reached, given those before it


Uniform: TypeAlias = Callable[[int, int], Tensor]  # (offset from the step's first position, purpose) -> float64 [1]
Rule: TypeAlias = Callable[[Tensor, Sequence[DraftToken], Uniform], Verdict]  # target rows [n + 1, V], n drafts


def problem() -> str | None:
    return None


def accepts(device: torch.device) -> bool:
    return True


def verify_token(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return apply_rule(token_rule, given)


def verify_block(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return apply_rule(block_rule, given)


def apply_rule(rule: Rule, given: VerifyInput) -> VerifyOutput:
    target_logits, draft, sampling, counts = given.target_logits, given.draft, given.sampling, given.counts
    device, batch = target_logits.device, len(counts)
    check_sampling(sampling)
    request_of_row = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts, dtype=torch.int64) + 1)
    bad_row = None
    if given.on_bad_row == "repair":
        bad_row = first_bad_rows(target_logits, request_of_row.to(device), batch)
        target_logits = repaired(target_logits)
    else:
        check_rows(target_logits, request_of_row, "target")
    each = sampling.rows(request_of_row.to(device))
    p, numbers = probabilities(target_logits, each), uniforms(each, counts)
    tokens = torch.full((batch, max(counts, default=0) + 1), -1, dtype=torch.int32, device=device)
    accepted = torch.zeros(batch, dtype=torch.int32, device=device)
    alpha = torch.zeros(sum(counts), dtype=torch.float32, device=device)
    probability = torch.full_like(alpha, torch.nan)
    first = 0
    for b, n in enumerate(counts):
        rows = p[first + b : first + b + n + 1]
        drafts = [draft_token(draft, first + j, sampling, b, rows.shape[-1]) for j in range(n)]
        verdict = rule(rows, drafts, partial(uniform, numbers, first + b))
        for j, one in enumerate(drafts):
            alpha[first + j] = torch.minimum(rows[j], one.q).sum() if one.q is not None else 0.0
            if j < verdict.accepted:
                tokens[b, j] = one.token
        tokens[b, verdict.accepted] = verdict.last
        accepted[b] = verdict.accepted
        for j, value in enumerate(verdict.probability):
            probability[first + j] = value
        first += n
    return VerifyOutput(tokens, accepted, alpha if given.expected_acceptance else None, probability, bad_row)


def token_rule(p: Tensor, drafts: Sequence[DraftToken], uniform: Uniform) -> Verdict:
    probability = []
    for j, (x, q, qx, _) in enumerate(drafts):
        px = float(p[j, x]) if q is not None else 0.0
        probability.append(clipped_ratio(px, qx))
        if not uniform(j, ACCEPT) * qx < px:
            return Verdict(j, recover(p[j], q, 1.0, uniform(j, RECOVER)), probability)
    n = len(drafts)
    return Verdict(n, inverse_cdf(p[n:], uniform(n, BONUS))[0], probability)


def block_rule(p: Tensor, drafts: Sequence[DraftToken], uniform: Uniform) -> Verdict:
    n, q = len(drafts), [d.q for d in drafts if d.q is not None]
    if n < 2 or not all(d.sampled for d in drafts):
        return token_rule(p, drafts, uniform)
    found = block(p, torch.stack(q), [d.token for d in drafts], [d.probability for d in drafts])
    tau = found.accepted(float(uniform(0, ACCEPT)))
    probability = found.acceptance_probability(tau)
    if tau == n:
        return Verdict(n, inverse_cdf(p[n:], uniform(n, BONUS))[0], probability)
    return Verdict(tau, recover(p[tau], q[tau], found.weight[tau], uniform(tau, RECOVER)), probability)


def sample_draft(logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow) -> tuple[Tensor, Tensor]:
    """See specdec.verify.sample_draft."""
    check_sampling(sampling)
    greedy = sampling.temperature < GREEDY_BELOW
    if on_bad_row == "repair":
        greedy = greedy | is_bad_row(logits)
        logits = repaired(logits)
    else:
        check_rows(logits, torch.arange(len(sampling)), "draft")
    threshold = thresholds(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    w = weights(logits, sampling.temperature, threshold)
    drawn = inverse_cdf(w, philox_uniform(sampling.seed, sampling.position, draft_purpose(step)))
    exact = logits.to(torch.float64)
    token = torch.where(greedy, exact.argmax(-1), drawn)
    t = torch.where(greedy, 0.0, sampling.temperature.to(torch.float64))
    lse = torch.where(greedy, 0.0, exact.amax(-1) / t + w.sum(-1).log())
    threshold = torch.where(greedy, exact.amax(-1), threshold)
    stats = torch.stack([t, threshold, lse, exact.gather(-1, token[:, None])[:, 0]], -1)
    return token.to(torch.int32), stats


def probabilities(logits: Tensor, sampling: SamplingBatch) -> Tensor:
    """float64 [R, V] of logits [R, V] and one entry of `sampling` per row; greedy rows: a point on the argmax."""
    threshold = thresholds(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    w = weights(logits, sampling.temperature, threshold)
    point = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(torch.float64)
    return torch.where((sampling.temperature < GREEDY_BELOW)[:, None], point, w / w.sum(-1, keepdim=True))


def draft_token(draft: Draft, i: int, sampling: SamplingBatch, b: int, vocab: int) -> DraftToken:
    """Draft i, of request b, with its distribution (see the guards above)."""
    x = int(draft.token_ids[i])
    nothing = DraftToken(x, None, 0.0, sampled=False)
    if not 0 <= x < vocab:
        return nothing
    point = torch.zeros(vocab, dtype=torch.float64, device=draft.token_ids.device)
    point[x] = 1.0
    at = i if draft.rows is None else int(draft.rows[i])
    if draft.logits is None or not 0 <= at < len(draft.logits) or sampling.temperature[b] < GREEDY_BELOW:
        return DraftToken(x, point, 1.0, sampled=False)
    row = draft.logits[at]
    if draft.row_stats is None:
        if is_bad_row(row[None])[0]:
            return nothing
        q = probabilities(row[None], sampling.rows(torch.tensor([b], device=row.device)))[0]
        return DraftToken(x, q, float(q[x]), sampled=True)
    stats = draft.row_stats[at]
    if stats[TEMPERATURE] == 0:
        return DraftToken(x, point, 1.0, sampled=False)
    if not stats[[TEMPERATURE, LOG_SUM_EXP, SAMPLED_LOGIT]].isfinite().all():
        return nothing
    exact = row.to(torch.float64)
    q = torch.where(exact >= stats[THRESHOLD], (exact / stats[TEMPERATURE] - stats[LOG_SUM_EXP]).exp(), 0.0)
    qx = (stats[SAMPLED_LOGIT] / stats[TEMPERATURE] - stats[LOG_SUM_EXP]).exp()
    return DraftToken(x, q, float(qx), sampled=True)


def recover(p: Tensor, q: Tensor | None, w: float, u: Tensor) -> Tensor:
    """A token from normalise(max(w p - q, 0)), or from p where that has no mass. p, q float64 [V]; u float64 [1]."""
    rest = p if q is None else residual(p, q, w)
    return inverse_cdf((rest if rest.sum() > 0 else p)[None], u)[0]


def uniforms(each: SamplingBatch, counts: Sequence[int]) -> dict[int, Tensor]:
    """By purpose, float64 [N + B]: the number of each target row, at its own position. each: the rows' requests."""
    offset = torch.tensor([j for n in counts for j in range(n + 1)], dtype=torch.int64, device=each.position.device)
    return {use: philox_uniform(each.seed, each.position + offset, use) for use in (ACCEPT, RECOVER, BONUS)}


def uniform(numbers: Mapping[int, Tensor], first_row: int, offset: int, purpose: int) -> Tensor:
    """float64 [1]: the number at `offset` from the position of the request whose target rows begin at first_row."""
    return numbers[purpose][first_row + offset, None]


def draft_purpose(step: int) -> int:
    """The Philox purpose of draft `step`: DRAFT for the first one, and one of its own for each of the others."""
    return DRAFT + 4 * step
