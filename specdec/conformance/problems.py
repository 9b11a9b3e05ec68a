"""The toy problems of the checks: small vocabularies, whose exact laws are known, and what to do with the outcome."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import Drafts, Implementation, Method, Step, Violation
from specdec.conformance.statistics import LEVEL, chi_square
from specdec.sampling import SamplingBatch, filtered_logits

V = 3


def chain() -> tuple[Tensor, Tensor]:
    """Logits [V, V] of target and head: of a token, given the one before.

    Found by a search: random numbers that the block rule meets again in the next step bias the law of two tokens by
    Σ (wrong - right)² / right = 0.16, so that 400 samples show it.
    """
    target = torch.tensor([[0.2, 1.3, 0.9], [-0.8, 1.3, -1.3], [-0.4, 0.9, -0.1]])
    head = torch.tensor([[-2.2, 1.3, 0.5], [-0.8, 2.3, 1.6], [1.3, 2.2, 0.3]])
    return target, head


def parameters(batch: int, **settings: float) -> SamplingBatch:
    """Seeds of their own for `batch` requests, position 100."""
    sampling = SamplingBatch.uniform(batch, position=100, seed=0, **settings)  # type: ignore[arg-type]
    sampling.seed = torch.arange(batch) * 7919 + 13
    return sampling


def law(logits: Tensor, **settings: float) -> Tensor:
    """float64 [R, V]: the distribution that logits [R, V] and the settings of one request stand for."""
    s = SamplingBatch.uniform(logits.shape[0], **settings)  # type: ignore[arg-type]
    return filtered_logits(logits, s.temperature, s.top_k, s.top_p, s.min_p).double().softmax(-1)


def require_law(tokens: Tensor, expected: Tensor, what: str) -> str:
    """Violation unless tokens [M] (int, of a vocabulary as large as `expected`) follow `expected` at level 1e-6."""
    size = expected.numel()
    require_tokens(tokens, size, what)
    result = chi_square(torch.bincount(tokens.flatten().long(), minlength=size), expected)
    if result.statistic == float("inf"):
        strange = tokens.flatten()[expected.flatten()[tokens.flatten().long()] == 0]
        raise Violation(f"{what}: {len(strange)} of {tokens.numel()} are outcomes of probability 0")
    said = f"{what}: chi-square {result.statistic:.0f} over {result.degrees} degrees, {tokens.numel()} samples"
    if result.p_value < LEVEL:
        raise Violation(said)
    return said


def require_tokens(tokens: Tensor, vocabulary: int, what: str) -> None:
    wrong = (tokens < 0) | (tokens >= vocabulary)
    if wrong.any():
        raise Violation(f"{what}: {int(wrong.sum())} ids outside [0, {vocabulary}), such as {int(tokens[wrong][0])}")


def require(holds: bool | Tensor, otherwise: str) -> None:
    if not bool(holds):
        raise Violation(otherwise)


def accepted(tokens: Tensor) -> Tensor:
    """int64 [B]: emitted tokens less one, from what verify returns."""
    return (tokens >= 0).sum(1) - 1


def of_drafts(sampling: SamplingBatch, counts: Sequence[int]) -> SamplingBatch:
    """An entry per draft in the place of one per request."""
    return sampling.rows(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))


def chosen(
    implementation: Implementation,
    target: Tensor,
    token_ids: Sequence[int],
    head: Tensor | None,
    sampling: SamplingBatch,
    method: Method = "token",
) -> Step:
    """B times the same request: target [n + 1, V], the drafts token_ids [n], which rows head [n, V] are said to have
    sampled; None: one-hot drafts."""
    batch, n = len(sampling), len(token_ids)
    counts = [n] * batch
    ids = torch.tensor(token_ids, dtype=torch.int32).repeat(batch)
    if head is None:
        drafts = Drafts(ids, None)
    else:
        drafts = implementation.keep(ids, head.repeat(batch, 1), of_drafts(sampling, counts))
    return Step(target.repeat(batch, 1), drafts, counts, sampling, method=method)


def drawn(
    implementation: Implementation,
    target: Tensor,
    head: Tensor,
    sampling: SamplingBatch,
    method: Method = "token",
    seeded: Tensor | None = None,
) -> Step:
    """B times the same request with drafts that the implementation draws: target [n + 1, V], head [n, V]."""
    batch, n = len(sampling), head.shape[0]
    known = torch.ones(batch, dtype=torch.bool) if seeded is None else seeded
    each = [implementation.draw(head[j].repeat(batch, 1), sampling, known, j) for j in range(n)]
    return Step(target.repeat(batch, 1), interleaved(each), [n] * batch, sampling, known, method)


def interleaved(each: Sequence[Drafts]) -> Drafts:
    """Draft 0 of B requests, draft 1 of B requests, ... as N = n B drafts, request-major."""

    def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
        tensors = [part for part in parts if part is not None]
        return torch.stack(tensors, 1).flatten(0, 1) if tensors else None

    token_ids = joined([one.token_ids for one in each])
    assert token_ids is not None, "at least one draft"
    return Drafts(token_ids, joined([one.rows for one in each]), joined([one.extra for one in each]))


def generate(
    implementation: Implementation, sampling: SamplingBatch, n: int, length: int, method: Method = "token"
) -> Tensor:
    """Tokens int64 [B, length] of B requests over the chain, n drafts a step, in as many steps as it takes."""
    target, head = chain()
    batch = len(sampling)
    text = torch.zeros(batch, length + n + 1, dtype=torch.int64)
    done = torch.zeros(batch, dtype=torch.int64)
    while (active := (done < length).nonzero()[:, 0]).numel():
        now = sampling.rows(active)
        now = replace(now, position=now.position + done[active])
        x = torch.where(done[active] > 0, text[active, done[active] - 1], 0)
        known = torch.ones(len(active), dtype=torch.bool)
        before, each = [x], []
        for j in range(n):
            each.append(implementation.draw(head[before[-1]], now, known, j))
            before.append(each[-1].token_ids.long())
            require_tokens(before[-1], V, "drafts")
        rows = target[torch.stack(before, 1)].flatten(0, 1)
        tokens = implementation.verify(Step(rows, interleaved(each), [n] * len(active), now, known, method)).long()
        taken = accepted(tokens)
        require((taken >= 0).all(), "a request emitted nothing")
        for j in range(n + 1):
            some = taken >= j
            text[active[some], done[active[some]] + j] = tokens[some, j]
        done[active] += taken + 1
    return text[:, :length]


def chain_law(length: int, **settings: float) -> Tensor:
    """float64 [V] * length: the joint law of what `generate` returns."""
    p = law(chain()[0], **settings)
    joint = p[0]
    for _ in range(length - 1):
        joint = joint[..., None] * p
    return joint


def place(tokens: Tensor) -> Tensor:
    """tokens [B, length] as indices into the flat chain_law."""
    return (tokens * V ** torch.arange(tokens.shape[1] - 1, -1, -1)).sum(1)
