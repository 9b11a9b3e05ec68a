"""Draft scales that follow what a server's requests show.

One verify step in EVERY looks at the first drafts of a few requests: sum(min(p, q)) at the scale they were drawn with,
at one step below and one above. A bucket moves on when that gains, by more than MARGIN and beyond doubt (three standard
errors; the three are compared on the same rows, so a difference shows after some hundred of them).

A scale may depend on all that has happened: what it changes are later drafts, whose random numbers nobody has seen yet,
and verification reads the rows that they were drawn from. So outputs keep their law. But where a step ends depends on
the scale, and with it which random number decides which token; requests with a seed of their own are to repeat, so
they keep the head's stored scales.

Everything is on the device and nothing waits for it; `values` stays where it is, for CUDA graphs that read it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from specdec.drafting.buckets import BUCKETS, bucket_of
from specdec.drafting.calibration import LARGEST, SMALLEST, Calibration
from specdec.drafting.overlap import probabilities
from specdec.sampling import SamplingBatch
from specdec.upload import to_device
from specdec.verify import Draft

EVERY = 32  # verify steps
ROWS = 8  # looked at in one of them
STEP = 1.1  # between scales
ENOUGH, WINDOW = 64, 4096  # rows of a bucket before it may move, and how many it remembers
GREEDY_PLACE = 2 * len(BUCKETS)  # in DraftScales.values, behind the scales of both kinds of requests
MARGIN = 1e-3  # of acceptance, that a move must gain: below it the place does not matter


class DraftScales:
    """values float32 [2 BUCKETS + 1]: for requests with a seed, for those without, and 1 for greedy ones.

    follow: whether the second kind leaves the head's stored scales.
    """

    def __init__(self, calibration: Calibration, device: torch.device | str, follow: bool):
        stored = torch.tensor(calibration.scales, dtype=torch.float32)
        self.values = torch.cat([stored, stored, torch.ones(1)]).to(device)
        self._follow, self._steps = follow, 0
        # Per bucket and neighbour (below, above): rows seen, sum and sum of squares of what it would have gained.
        self._seen = torch.zeros(len(BUCKETS), 2, 3, dtype=torch.float64, device=device)

    def of(self, places: Tensor) -> Tensor:
        """Scales float32 [B] of requests whose scales stand at places [B]."""
        return self.values[places]

    @staticmethod
    def place(temperature: float, top_k: int, top_p: float, min_p: float, seeded: bool) -> int:
        """Index in `values` of a request's scale; parameters as in SamplingBatch."""
        bucket = bucket_of(temperature, top_k, top_p, min_p)
        if bucket is None:
            return GREEDY_PLACE
        return bucket if seeded else len(BUCKETS) + bucket

    def look(
        self, target: Tensor, draft: Draft, sampling: SamplingBatch, places: Tensor, backend: str = "auto"
    ) -> None:
        """Called with each verify step, its input as in specdec.verify.verify; places [B] int64: in `values`."""
        counts = draft.counts()
        if not self._follow or draft.logits is None or draft.rows is None or not any(counts):
            return
        self._steps += 1
        if self._steps % EVERY:
            return
        requests, rows, drafts = to_device(_first_drafts(counts, self._steps // EVERY * ROWS), target.device)
        kept = draft.rows[drafts]
        places = places[requests].masked_fill(kept < 0, GREEDY_PLACE)
        self.observe(target[rows], draft.logits[kept.clamp(min=0)], sampling.rows(requests), places, backend)

    def observe(self, target: Tensor, draft: Tensor, sampling: SamplingBatch, places: Tensor, backend: str) -> None:
        """Rows of logits [R, V] that stand for one position each, under sampling parameters [R].

        draft: as kept, at the scales that they were drawn with. places [R] int64: in `values`; those of requests that
        do not follow are left out, as are rows whose acceptance is no number.
        """
        factors = (1 / STEP, 1.0, STEP)
        p = probabilities(target, sampling, backend)
        drawn = (probabilities(draft.float() * f, sampling, backend) for f in factors)
        below, at, above = (torch.minimum(p, q).sum(-1).double() for q in drawn)
        gains = torch.stack([below - at, above - at], -1)  # [R, 2]
        bucket = places - len(BUCKETS)
        usable = ((bucket >= 0) & (bucket < len(BUCKETS)) & gains.isfinite().all(-1))[:, None]
        gains = gains.where(usable, 0.0)
        moments = torch.stack([usable.expand_as(gains).double(), gains, gains * gains], -1)  # [R, 2, 3]
        self._seen.index_add_(0, bucket.clamp(0, len(BUCKETS) - 1), moments)
        self._move()

    def _move(self) -> None:
        rows, total, squares = self._seen.unbind(-1)
        mean = total / rows.clamp(min=1)
        error = ((squares / rows.clamp(min=1) - mean * mean).clamp(min=0) / rows.clamp(min=1)).sqrt()
        worth = (rows >= ENOUGH) & (mean > MARGIN) & (mean > 3 * error)
        down, up = worth.unbind(-1)
        up = up & ~(down & (mean[:, 0] > mean[:, 1]))
        factor = torch.where(up, STEP, torch.where(down, 1 / STEP, 1.0))
        following = self.values[len(BUCKETS) : 2 * len(BUCKETS)]
        following.mul_(factor.to(following.dtype)).clamp_(SMALLEST, LARGEST)
        self._seen.mul_(torch.where(rows > WINDOW, 0.5, 1.0)[..., None])
        self._seen.mul_((~(up | down)).to(self._seen.dtype)[:, None, None])


def _first_drafts(counts: Sequence[int], turn: int) -> Tensor:
    """int64 [3, R] of at most ROWS requests with drafts: request, its first row of the target, its first draft.

    turn: how many requests to skip first, around the batch, so that all have theirs.
    """
    number = np.asarray(counts, dtype=np.int64)
    first = np.cumsum(number) - number
    some = np.roll(np.flatnonzero(number), -turn)[:ROWS]
    return torch.from_numpy(np.stack([some, first[some] + some, first[some]]))
