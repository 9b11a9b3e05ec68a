"""The definition of verification, in PyTorch and float64. Slow; runs on every device.

Token verification (Leviathan et al., arXiv 2211.17192, algorithm 1). For draft token x at a position with target p and
draft q, both after temperature and filters: accept where u q(x) < p(x); at the first rejection draw from
normalise(max(p - q, 0)) and stop; after the last acceptance draw the bonus token from p.

u comes from the request's Philox stream at the token's absolute position, one purpose per use. `<` and not `<=`: u may
be 0, and a token with p(x) = 0 must not be accepted.

Guards for input that no draft of ours produces; the output keeps the target's distribution in both:
- a token id outside [0, V), or a draft row that is no distribution: rejected, then drawn from p;
- a residual without mass (rounding where p and q are equal): drawn from p.
"""

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
from specdec.verify.checks import check_rows, check_sampling, is_bad_row
from specdec.verify.types import LOG_SUM_EXP, SAMPLED_LOGIT, TEMPERATURE, THRESHOLD, Draft, VerifyOutput


def available() -> bool:
    return True


def accepts(device: torch.device) -> bool:
    return True


def verify_token(
    target_logits: Tensor, draft: Draft, sampling: SamplingBatch, counts: list[int], expected_acceptance: bool
) -> VerifyOutput:
    """See specdec.verify.verify."""
    device, batch = target_logits.device, len(counts)
    check_sampling(sampling)
    request_of_row = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts, dtype=torch.int64) + 1)
    check_rows(target_logits, request_of_row, "target")
    p = probabilities(target_logits, sampling.rows(request_of_row.to(device)))
    tokens = torch.full((batch, max(counts, default=0) + 1), -1, dtype=torch.int32, device=device)
    accepted = torch.zeros(batch, dtype=torch.int32, device=device)
    alpha = torch.zeros(sum(counts), dtype=torch.float32, device=device)
    ratio = torch.full_like(alpha, torch.nan)
    first = 0
    for b, n in enumerate(counts):
        rows = p[first + b : first + b + n + 1]
        alive = True
        for j in range(n):
            x = int(draft.token_ids[first + j])
            q, qx = draft_distribution(draft, first + j, x, sampling, b, rows.shape[-1])
            px = float(rows[j, x]) if q is not None else 0.0
            alpha[first + j] = torch.minimum(rows[j], q).sum() if q is not None else 0.0
            if not alive:
                continue
            ratio[first + j] = min(1.0, px / qx) if px > 0 and qx > 0 else float(px > 0)
            if q is not None and uniform(sampling, b, j, ACCEPT) * qx < px:
                tokens[b, j] = x
                accepted[b] += 1
            else:
                tokens[b, j] = recover(rows[j], q, uniform(sampling, b, j, RECOVER))
                alive = False
        if alive:
            tokens[b, n] = inverse_cdf(rows[n:], uniform(sampling, b, n, BONUS))[0]
        first += n
    return VerifyOutput(tokens, accepted, alpha if expected_acceptance else None, ratio)


def sample_draft(logits: Tensor, sampling: SamplingBatch, step: int) -> tuple[Tensor, Tensor]:
    """See specdec.verify.sample_draft."""
    check_sampling(sampling)
    check_rows(logits, torch.arange(len(sampling)), "draft")
    greedy = sampling.temperature < GREEDY_BELOW
    threshold = thresholds(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    w = weights(logits, sampling.temperature, threshold)
    drawn = inverse_cdf(w, philox_uniform(sampling.seed, sampling.position + step, DRAFT))
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


def draft_distribution(
    draft: Draft, i: int, x: int, sampling: SamplingBatch, b: int, vocab: int
) -> tuple[Tensor | None, float]:
    """q [V] of draft i and q(x); q is None where there is none (see the guards above)."""
    if not 0 <= x < vocab:
        return None, 0.0
    point = torch.zeros(vocab, dtype=torch.float64, device=draft.token_ids.device)
    point[x] = 1.0
    if draft.logits is None or sampling.temperature[b] < GREEDY_BELOW:
        return point, 1.0
    row = draft.logits[i]
    if draft.row_stats is None:
        if is_bad_row(row[None])[0]:
            return None, 0.0
        q = probabilities(row[None], sampling.rows(torch.tensor([b], device=row.device)))[0]
        return q, float(q[x])
    stats = draft.row_stats[i]
    if stats[TEMPERATURE] == 0:
        return point, 1.0
    if not stats[[TEMPERATURE, LOG_SUM_EXP, SAMPLED_LOGIT]].isfinite().all():
        return None, 0.0
    exact = row.to(torch.float64)
    q = torch.where(exact >= stats[THRESHOLD], (exact / stats[TEMPERATURE] - stats[LOG_SUM_EXP]).exp(), 0.0)
    return q, float((stats[SAMPLED_LOGIT] / stats[TEMPERATURE] - stats[LOG_SUM_EXP]).exp())


def recover(p: Tensor, q: Tensor | None, u: Tensor) -> Tensor:
    """A token from normalise(max(p - q, 0)), or from p where that has no mass. p, q float64 [V]; u float64 [1]."""
    residual = p if q is None else (p - q).clamp(min=0)
    return inverse_cdf((residual if residual.sum() > 0 else p)[None], u)[0]


def uniform(sampling: SamplingBatch, b: int, offset: int, purpose: int) -> Tensor:
    """float64 [1]: request b's number for the token at `offset` from its position."""
    return philox_uniform(sampling.seed[b : b + 1], sampling.position[b : b + 1] + offset, purpose)
