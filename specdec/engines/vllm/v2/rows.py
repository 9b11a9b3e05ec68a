"""Draft rows by request slot: kept by the drafter, read where they are by the verify step of whichever step comes next.

A row says for which position it was drawn, so what is found there and no longer holds (another request's, a step's
whose drafts were never scheduled) is told apart on the device. Such drafts are verified as one-hot, and so are those of
requests with a grammar: see drafts.py for why both are exact.
"""

import torch
from torch import Tensor

from specdec.verify.types import NUM_STATS

NOWHERE = -1  # as the position of a row: nothing is kept


class DraftRows:
    """logits [places + 1, n, V] and stats [places + 1, n, 4] float64 of the drafts, position [places + 1, n] int64: the
    first position of the verify step that a draft was drawn for.

    num_slots: request slots of the runner; places: how many of them have room, at most. vLLM hands out the highest
    slots first, so those have the places. The spare place at the end takes what nobody reads: rows of slots without
    room, and of slot -1, the padding of a CUDA graph. All tensors stay where they are for good.
    """

    def __init__(
        self,
        num_slots: int,
        num_drafts: int,
        vocab_size: int,
        dtype: torch.dtype,
        device: torch.device,
        places: int | None = None,
    ):
        self._slots, self._n = num_slots, num_drafts
        self._places = num_slots if places is None else min(places, num_slots)
        shape = (self._places + 1, num_drafts)
        self.logits = torch.zeros(*shape, vocab_size, dtype=dtype, device=device)
        self.stats = torch.zeros(*shape, NUM_STATS, dtype=torch.float64, device=device)
        self.position = torch.full(shape, NOWHERE, dtype=torch.int64, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes held for draft rows."""
        return self.logits.nbytes + self.stats.nbytes

    @property
    def flat_logits(self) -> Tensor:
        """[R, V]: Draft.logits for the rows that `find` names."""
        return self.logits.flatten(0, 1)

    @property
    def flat_stats(self) -> Tensor:
        """[R, 4]: Draft.row_stats, likewise."""
        return self.stats.flatten(0, 1)

    def write(self, slots: Tensor, step: Tensor, position: Tensor, logits: Tensor, stats: Tensor) -> None:
        """Keep draft `step` (int64, [] or [B]) of slots [B], drawn for the verify step that begins at position [B].

        logits [B, V] in this pool's dtype, stats [B, 4]. Device work alone, and so right inside a CUDA graph.
        """
        rows = self._place(slots) * self._n + step
        self.flat_logits.index_copy_(0, rows, logits)
        self.flat_stats.index_copy_(0, rows, stats)
        self.position.flatten().index_copy_(0, rows, position)

    def find(self, slots: Tensor, step: Tensor, position: Tensor) -> Tensor:
        """int64 [N]: the row of each draft, given its slot, step and verify step's first position; -1: not kept."""
        place = self._place(slots)
        rows = place * self._n + step
        kept = (place < self._places) & (self.position.flatten()[rows] == position)
        return torch.where(kept, rows, -1)

    def forget(self, slots: Tensor) -> None:
        """Other requests have moved into slots [k]."""
        self.position.index_fill_(0, self._place(slots), NOWHERE)

    def _place(self, slots: Tensor) -> Tensor:
        return (self._slots - 1 - slots.to(torch.int64)).clamp_(max=self._places)
