"""One planted fault per check: a check that cannot fail is worthless. Each is the right implementation with one bug.

They run at SAMPLES requests, the least that any implementation is tested with: what the checks find there they find
everywhere.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import Drafts, Step
from specdec.conformance.implementations.ours import Ours
from specdec.sampling import (
    ACCEPT,
    BONUS,
    RECOVER,
    SamplingBatch,
    inverse_cdf,
    philox_uniform,
    thresholds,
    weights,
)
from specdec.verify import backends

SAMPLES = 400


class Mutant(Ours):
    """Right, but for what a subclass gets wrong. Claims every capability, so that every check applies."""

    def __init__(self) -> None:
        super().__init__("cpu" if "cpu" in backends() else "reference")
        self.samples = SAMPLES
        self.lacks = {}

    def verify(self, step: Step) -> Tensor:
        if step.presence_penalty is not None:
            step = replace(step, target=self.penalised(step), presence_penalty=None)
        if step.zero_uniform:
            return self.at_zero(step)
        return super().verify(step)

    def penalised(self, step: Step) -> Tensor:
        """Row j of a request: the drafts before it are penalised."""
        target, first = step.target.clone(), 0
        assert step.presence_penalty is not None, "asked for"
        for b, ids in enumerate(step.drafts.token_ids.split(step.counts)):
            for j in range(1, len(ids) + 1):
                target[first + j, ids[:j].unique().long()] -= step.presence_penalty[b]
            first += len(ids) + 1
        return target

    def at_zero(self, step: Step) -> Tensor:
        """Only the reference can be told its random numbers."""
        reference = Ours("reference")
        return reference.verify(step)


def rows_of(step: Step, place: int) -> Tensor:
    """int64 [B]: the target row of each request at `place` of its step; -1: its bonus row."""
    counts = torch.tensor(step.counts)
    first = (counts + 1).cumsum(0) - counts - 1
    return first + (counts if place < 0 else place)


def last_place(tokens: Tensor) -> Tensor:
    return (tokens >= 0).sum(1) - 1


def noise(step: Step, purpose: int) -> Tensor:
    """Uniforms [B] that nothing else uses."""
    return philox_uniform(step.sampling.seed, step.sampling.position + 999, purpose)


class SharedNoise(Mutant):
    """The first draft is drawn with the number that decides on its acceptance."""

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        if step:
            return Drafts(super().draw(logits, sampling, seeded, step).token_ids, logits)
        s = sampling
        threshold = thresholds(logits, s.temperature, s.top_k, s.top_p, s.min_p)
        u = philox_uniform(s.seed, s.position, ACCEPT)
        return Drafts(inverse_cdf(weights(logits, s.temperature, threshold), u).to(torch.int32), logits)


class ShortTail(Mutant):
    """Bonus tokens by Gumbel noise from 24-bit numbers. Of a tail of like tokens only the largest noise matters: that
    of the largest of m uniforms, U^(1/m)."""

    def verify(self, step: Step) -> Tensor:
        vocabulary = step.target.shape[1]
        if vocabulary < 2**17 or max(step.counts):
            return super().verify(step)
        largest = step.target.argmax(1)
        other = (largest + 1) % vocabulary
        gap = (step.target.amax(1) - step.target.gather(1, other[:, None])[:, 0]).double()
        head, tail = (noise(step, purpose) for purpose in (BONUS, RECOVER))
        tail = tail ** (1 / (vocabulary - 1))
        gumbel = [-(-((u * 2**24).floor().clamp(1, 2**24 - 1) / 2**24).log()).log() for u in (head, tail)]
        return torch.where(gumbel[1] - gap > gumbel[0], other, largest)[:, None]


class IdBeyondTheVocabulary(Mutant):
    """A target row of NaN gives id V."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        bad = step.target[rows_of(step, 0)].isnan().any(1)
        tokens[bad, 0] = step.target.shape[1]
        return tokens


class NeighboursPay(Mutant):
    """One bad row, and the whole batch gets its argmax."""

    def verify(self, step: Step) -> Tensor:
        if step.target.isnan().any():
            greedy = replace(step.sampling, temperature=torch.zeros(len(step.sampling)))
            step = replace(step, sampling=greedy)
        return super().verify(step)


class BadDraftRowsPass(Mutant):
    """Comparisons with NaN let the draft through."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        if step.drafts.rows is not None and step.drafts.rows.isnan().any():
            tokens[:, 0] = step.drafts.token_ids.view(len(tokens), -1)[:, 0]
        return tokens


class LessOrEqual(Mutant):
    """u q <= p."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        if step.drafts.rows is None or max(step.counts) != 1 or min(step.counts) != 1:
            return tokens
        ids = step.drafts.token_ids.long()
        p = step.target[rows_of(step, 0)].gather(1, ids[:, None].clamp(min=0))[:, 0]
        q = step.drafts.rows.gather(1, ids[:, None].clamp(min=0))[:, 0]
        through = (p == -torch.inf) & ((q == -torch.inf) | step.zero_uniform) & (ids >= 0)
        tokens[through, 0] = ids[through].int()
        return tokens


class OneSeedForAll(Mutant):
    def verify(self, step: Step) -> Tensor:
        return super().verify(replace(step, sampling=first_seed(step.sampling)))

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        return super().draw(logits, first_seed(sampling), seeded, step)


def first_seed(s: SamplingBatch) -> SamplingBatch:
    return replace(s, seed=s.seed[:1].expand(len(s)).contiguous())


class UnseededShare(Mutant):
    """Requests without a seed all get one seed, as SGLang's get 42."""

    def verify(self, step: Step) -> Tensor:
        seeds = torch.where(step.seeded, step.sampling.seed, 42)
        known = torch.ones_like(step.seeded)
        return super().verify(replace(step, sampling=replace(step.sampling, seed=seeds), seeded=known))


class DraftsWithoutSeeds(Mutant):
    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        return super().draw(logits, sampling, torch.zeros_like(seeded), step)


class NoiseByBatchOrder(Mutant):
    """A request's numbers depend on how many come before it and have no seed."""

    def verify(self, step: Step) -> Tensor:
        moved = step.sampling.seed + (~step.seeded).cumsum(0)
        return super().verify(replace(step, sampling=replace(step.sampling, seed=moved)))


class WritesTheTarget(Mutant):
    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        step.target.div_(step.sampling.temperature.min())
        return tokens


class DraftsFromRoundedLogits(Mutant):
    """Sampled from bf16, kept in float32."""

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        return Drafts(super().draw(logits.bfloat16(), sampling, seeded, step).token_ids, logits)


class PenaltiesOncePerStep(Mutant):
    def penalised(self, step: Step) -> Tensor:
        return step.target


class ForgetsMinP(Mutant):
    def verify(self, step: Step) -> Tensor:
        return super().verify(replace(step, sampling=replace(step.sampling, min_p=torch.zeros(len(step.counts)))))


class AssumesContiguous(Mutant):
    def verify(self, step: Step) -> Tensor:
        rows, vocabulary = step.target.shape
        if not step.target.is_contiguous():
            step = replace(step, target=step.target.as_strided((rows, vocabulary), (vocabulary, 1)))
        return super().verify(step)


class LosesTheLastBlock(Mutant):
    """Of each row, what is behind the last whole block of 64."""

    def verify(self, step: Step) -> Tensor:
        vocabulary = step.target.shape[1]
        if vocabulary > 64 and vocabulary % 64:
            cut = step.target.clone()
            cut[:, vocabulary // 64 * 64 :] = -torch.inf
            step = replace(step, target=cut)
        return super().verify(step)


class ForgetsFilters(Mutant):
    """The temperature alone."""

    def verify(self, step: Step) -> Tensor:
        n = len(step.counts)
        return super().verify(replace(step, sampling=replace(step.sampling, top_k=torch.zeros(n), top_p=torch.ones(n))))


class PivotNotFound(Mutant):
    """Where one token has nearly all the mass the search for top-p gives up, and keeps the tail."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        p = step.target[rows_of(step, 0)].double().softmax(-1)
        lost = (p.amax(-1) > 0.99999) & (step.sampling.top_p < 1)
        tokens[lost, 0] = p[lost].argmin(-1).int()
        return tokens


class EmitsPlaceholders(Mutant):
    """-1 is accepted as a token, and skipped in the output."""

    def verify(self, step: Step) -> Tensor:
        ids = step.drafts.token_ids
        if (ids < 0).any():
            step = replace(step, drafts=replace(step.drafts, token_ids=ids.clamp(min=0)))
        return super().verify(step)


class AllAlike(Mutant):
    """Requests without drafts are sampled from the first row of the request before."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        if len(set(step.counts)) > 1:
            none = torch.tensor(step.counts) == 0
            p = step.target[rows_of(step, -1).roll(1)].double().softmax(-1)
            tokens[none, 0] = inverse_cdf(p, noise(step, BONUS))[none].int()
        return tokens


class TokenResidual(Mutant):
    """Block rule, recovered from max(P - Q, 0)."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        if step.method != "block" or step.drafts.rows is None:
            return tokens
        n, count = max(step.counts), last_place(tokens)
        some = ((count > 0) & (count < n)).nonzero()[:, 0]
        p = step.target.view(len(tokens), n + 1, -1)[some, count[some]].double().softmax(-1)
        q = step.drafts.rows.view(len(tokens), n, -1)[some, count[some]].double().softmax(-1)
        rest = (p - q).clamp(min=0)
        rest = torch.where(rest.sum(-1, True) > 0, rest, p)
        tokens[some, count[some]] = inverse_cdf(
            torch.where(rest.sum(-1, True) > 0, rest, p), noise(step, RECOVER)[some]
        ).int()
        return tokens


class NumbersByPosition(Mutant):
    """Block rule, u and drafts named by the token's position: vLLM V2's scheme."""

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        moved = replace(sampling, position=sampling.position + step)
        return Drafts(super().draw(logits, moved, seeded, 0).token_ids, logits)

    def verify(self, step: Step) -> Tensor:
        if step.method != "block" or step.drafts.rows is None:
            return super().verify(step)
        s, n, batch = step.sampling, max(step.counts), len(step.counts)
        p = step.target.view(batch, n + 1, -1).double().softmax(-1)
        q = step.drafts.rows.view(batch, n, -1).double().softmax(-1)
        x = step.drafts.token_ids.view(batch, n).long()
        each = torch.arange(batch)
        w = [torch.ones(batch, dtype=torch.float64)]
        for i in range(n):
            w.append((w[i] * p[each, i, x[:, i]] / q[each, i, x[:, i]]).clamp(max=1))
        tau = torch.zeros(batch, dtype=torch.int64)
        for i in range(1, n + 1):
            mass = (w[i][:, None] * p[:, i] - q[:, i]).clamp(min=0).sum(1) if i < n else w[n]
            h = w[n] if i == n else mass / (mass + 1 - w[i]).clamp(min=1e-12)
            tau = torch.where(philox_uniform(s.seed, s.position + i - 1, ACCEPT) <= h, i, tau)
        at = tau.clamp(max=n - 1)
        rest = (torch.stack(w, 1)[each, at, None] * p[each, at] - q[each, at]).clamp(min=0)
        rest = torch.where((tau == n)[:, None] | (rest.sum(1, True) == 0), p[each, tau], rest)
        tokens = torch.cat([x, x[:, :1]], 1)
        tokens[each, tau] = inverse_cdf(rest, philox_uniform(s.seed, s.position + tau, RECOVER))
        return tokens.masked_fill(torch.arange(n + 1) > tau[:, None], -1)


class AllOrNothing(Mutant):
    """Block rule on one-hot drafts without the residual masses: all drafts are accepted, or none."""

    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        if step.method == "block" and step.drafts.rows is None:
            short = (last_place(tokens) < torch.tensor(step.counts)).nonzero()[:, 0]
            p = step.target[rows_of(step, 0)[short]].double().softmax(-1)
            first = step.drafts.token_ids.view(len(tokens), -1)[short, :1].long()
            tokens[short] = -1
            tokens[short, 0] = inverse_cdf(p.scatter(1, first, 0.0), noise(step, RECOVER)[short]).int()
        return tokens


class OneTooMany(Mutant):
    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        return torch.cat([tokens, tokens[:, :1]], 1)


class BonusUnfiltered(Mutant):
    def verify(self, step: Step) -> Tensor:
        tokens = super().verify(step)
        full = (last_place(tokens) == torch.tensor(step.counts)).nonzero()[:, 0]
        rows = step.target[rows_of(step, -1)[full]] / step.sampling.temperature[full, None]
        drawn = inverse_cdf(rows.double().softmax(-1), noise(step, BONUS)[full])
        tokens[full, torch.tensor(step.counts)[full]] = drawn.int()
        return tokens


class WholeBatchOneHot(Mutant):
    def verify(self, step: Step) -> Tensor:
        return super().verify(replace(step, drafts=Drafts(step.drafts.token_ids, None)) if step.lost else step)


class TiesCutOnDraftRows(Mutant):
    """Ties of top-k: the lowest ids on draft rows, all of them on bonus rows."""

    def verify(self, step: Step) -> Tensor:
        target, bonus = step.target.clone(), set(rows_of(step, -1).tolist())
        k = int(step.sampling.top_k.max())
        if k:
            for row in set(range(len(target))) - bonus:
                order = target[row].sort(descending=True, stable=True).indices
                target[row, order[k:]] = -torch.inf
        return super().verify(replace(step, target=target))


class AnotherTemperature(Mutant):
    """The target's rows at temperatures that are not the request's."""

    def verify(self, step: Step) -> Tensor:
        return super().verify(replace(step, target=step.target * 0.5))


MUTANTS: tuple[tuple[str, Callable[[], Mutant]], ...] = (
    ("one-stream", SharedNoise),
    ("tails", ShortTail),
    ("bad-target-rows", IdBeyondTheVocabulary),
    ("bad-target-rows", NeighboursPay),
    ("bad-draft-rows", BadDraftRowsPass),
    ("zero-uniform", LessOrEqual),
    ("impossible-drafts", LessOrEqual),
    ("seeds", OneSeedForAll),
    ("seeds", UnseededShare),
    ("seeds", DraftsWithoutSeeds),
    ("seed-neighbours", NoiseByBatchOrder),
    ("unchanged", WritesTheTarget),
    ("draft-rounding", DraftsFromRoundedLogits),
    ("penalties", PenaltiesOncePerStep),
    ("min-p", ForgetsMinP),
    ("layouts", AssumesContiguous),
    ("vocabularies", LosesTheLastBlock),
    ("peaked-top-p", PivotNotFound),
    ("placeholders", EmitsPlaceholders),
    ("ragged", AllAlike),
    ("block-residual", TokenResidual),
    ("block-steps", NumbersByPosition),
    ("block-one-hot", AllOrNothing),
    ("emitted-count", OneTooMany),
    ("target-filters", ForgetsFilters),
    ("target-filters", AnotherTemperature),
    ("bonus-filters", BonusUnfiltered),
    ("lost-rows", WholeBatchOneHot),
    ("ties", TiesCutOnDraftRows),
)
