"""Σ min(p, q) and the target's entropy, exactly: on one step in EVERY, and on all tokens of requests that ask for it.

Both read whole rows of logits, which is why not every step does. p and q are what drafting and verification sample by
(specdec/drafting/overlap.py). The entropy is that of p, temperature and filters applied, in nats: 0 where the request
is greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specdec.drafting.overlap import probabilities
from specdec.metrics.cells import EVERY
from specdec.sampling import GREEDY_BELOW, SamplingBatch
from specdec.upload import to_device
from specdec.verify import Draft
from specdec.verify.types import TEMPERATURE

ROWS = 8  # drafts looked at in one step, but all of one request's at least
AT_ONCE = 16  # rows made into probabilities at a time: they take float32 copies


@dataclass(frozen=True, eq=False)
class Looked:
    """drafts int64 [m] on the host: those of the step that were looked at. On the device, float32: their Σ min(p, q)
    [m], the target's entropy at each [m], and the entropies of the rows of requests that asked [r].
    """

    drafts: np.ndarray
    overlap: Tensor
    entropy: Tensor
    own: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Looked | None"], first_drafts: Sequence[int]) -> "Looked | None":
        """Of a step that was looked at in parts. first_drafts: where each part's drafts begin."""
        found = [(part, first) for part, first in zip(parts, first_drafts, strict=True) if part is not None]
        if not found:
            return None
        tensors = zip(*[(part.overlap, part.entropy, part.own) for part, _ in found], strict=True)
        return cls(np.concatenate([part.drafts + first for part, first in found]), *map(torch.cat, tensors))


class Exact:
    """Looks at steps as verify gets them. overlaps: whether Σ min(p, q) is what is accepted (token rule); otherwise it
    is not a number. every: one step in so many is looked at for the counters, 0: none.
    """

    def __init__(self, backend: str = "auto", overlaps: bool = True, every: int = EVERY):
        self._backend, self._overlaps, self.every = backend, overlaps, every
        self._steps = 0

    def look(self, target: Tensor, draft: Draft, sampling: SamplingBatch, asking: Sequence[int]) -> Looked | None:
        """target, draft, sampling: as in specdec.verify.verify. asking: requests whose every row's entropy is wanted.

        None where there is nothing to look at. Nothing waits for the device.
        """
        due = self._is_due(draft)
        if not due and not len(asking):
            return None
        counts = np.asarray(draft.counts(), dtype=np.int64)
        drafts, requests = self._sampled(counts, due)
        if not len(drafts) and not len(asking):
            return None
        first = np.cumsum(counts + 1) - counts - 1
        own = [np.arange(first[b], first[b] + counts[b] + 1) for b in asking]
        rows = np.concatenate([drafts + requests, *own])
        owners = np.concatenate([requests, np.repeat(np.asarray(asking, dtype=np.int64), counts[list(asking)] + 1)])
        which = np.pad(drafts, (0, len(rows) - len(drafts)))
        found = []
        for begin in range(0, len(rows), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            index = torch.from_numpy(np.stack([rows[part], owners[part], which[part]]))
            where, whose, of = to_device(index, target.device)
            found.append(self._measured(target[where], draft, of, sampling.rows(whose), len(drafts) - begin))
        overlaps, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Looked(drafts, overlaps[: len(drafts)], *entropies.split([len(drafts), len(rows) - len(drafts)]))

    def _is_due(self, draft: Draft) -> bool:
        """Whether this step is looked at for the counters."""
        if not self.every or not len(draft.token_ids):
            return False
        self._steps += 1
        return self._steps % self.every == 0

    def _sampled(self, counts: np.ndarray, due: bool) -> tuple[np.ndarray, np.ndarray]:
        """The drafts to look at in this step, and the request of each; in turn, so that all requests have theirs."""
        none = np.zeros(0, dtype=np.int64)
        if not due:
            return none, none
        some = np.roll(np.flatnonzero(counts), -(self._steps // self.every) * max(1, ROWS // int(counts.max())))
        some = some[: max(1, int((np.cumsum(counts[some]) <= ROWS).sum()))]
        first = np.cumsum(counts) - counts
        drafts = np.concatenate([np.arange(first[b], first[b] + counts[b]) for b in some])
        return drafts, np.repeat(some, counts[some])

    def _measured(
        self, target: Tensor, draft: Draft, drafts: Tensor, sampling: SamplingBatch, with_drafts: int
    ) -> tuple[Tensor, Tensor]:
        """Overlap and entropy float32 [r] of rows of the target [r, V]; the first `with_drafts` are of drafts [r]."""
        greedy = (sampling.temperature < GREEDY_BELOW)[:, None]
        p = probabilities(target, sampling, self._backend)
        if greedy.device.type != "cpu" or greedy.any():  # another device is not waited for
            certain = torch.zeros_like(p).scatter_(
                1, target.float().nan_to_num(-torch.inf).argmax(1, keepdim=True), 1.0
            )
            p = torch.where(greedy, certain, p)
        entropy = torch.special.entr(p).sum(-1)
        count = min(max(with_drafts, 0), len(p)) if self._overlaps else 0
        if not count:
            return entropy.new_full((len(p),), torch.nan), entropy
        p, sampling, drafts = p[:count], sampling.rows(torch.arange(count, device=p.device)), drafts[:count]
        tokens = draft.token_ids[drafts].to(torch.int64)
        there = (tokens >= 0) & (tokens < p.shape[1])
        # Of a point mass on the token x, which a one-hot draft is, Σ min(p, q) is p(x).
        overlap = p.gather(1, tokens.clamp(0, p.shape[1] - 1)[:, None])[:, 0]
        if draft.logits is not None:
            at = drafts if draft.rows is None else draft.rows[drafts]
            q = probabilities(draft.logits[at.clamp(min=0)], sampling, self._backend)
            one_hot = at < 0
            if draft.row_stats is not None:
                one_hot = one_hot | (draft.row_stats[at.clamp(min=0), TEMPERATURE] == 0)
            overlap = torch.where(one_hot, overlap, torch.minimum(p, q).sum(-1))
        overlap = torch.where(there, overlap, 0.0)
        return torch.cat([overlap, overlap.new_full((len(entropy) - count,), torch.nan)]), entropy
