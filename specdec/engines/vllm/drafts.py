"""Draft rows between the step that proposes and the step that verifies, kept by request.

A row belongs to a request, not to a place in the batch: a request left out of a step (token budget) finds its own rows
again. vLLM keeps them by batch position and, when one request missed a step, verifies the whole batch as if the
drafts were one-hot.

Verifying a sampled draft as one-hot is exact whatever sampled it: x is kept with probability p(x), or else replaced by
a draw from p without x, so the token's law is p for every x. It only costs acceptance. So that is what happens to
drafts whose rows are gone (vLLM has put padding in their place), and to those of requests with a grammar: there vLLM
cuts the drafts at the first token that the grammar forbids, and a cut that looks at the token's value is only harmless
where the law is p for every value.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from specdec.upload import to_device
from specdec.verify.types import NUM_STATS

CPU = torch.device("cpu")
NOT_KEPT = -1  # in Draft.rows: verified as one-hot


def row_bytes(vocab_size: int, dtype: torch.dtype) -> int:
    """Bytes that one kept draft takes: its logits and its row statistics (float64)."""
    return vocab_size * dtype.itemsize + NUM_STATS * 8


class Kept(NamedTuple):
    """What DraftStore.take finds: the first three are Draft's logits, row_stats and rows."""

    logits: torch.Tensor  # [slots * n, V], the store's own
    row_stats: torch.Tensor  # [slots * n, 4], likewise
    rows: torch.Tensor  # int64 [drafts wanted]
    lost: int  # drafts wanted whose rows were gone


class DraftStore:
    """logits [slots, n, V] as they sampled the drafts, and their row statistics [slots, n, 4]; grows as needed.

    n: drafts per request at most. Memory: slots * n * V * (bytes of a logit) plus 32 bytes a row. max_requests bounds
    it: the drafts of requests beyond so many at once are not kept, and so verified as one-hot. device: of the logits.
    """

    def __init__(self, num_drafts: int, max_requests: int | None = None, device: torch.device = CPU):
        self._n = num_drafts
        self._device = device
        self._max_requests = max_requests
        self._logits: torch.Tensor | None = None
        self._stats: torch.Tensor | None = None
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._kept: dict[str, int] = {}  # request -> drafts proposed and not yet verified
        self._writing: list[str] = []
        self._rows: torch.Tensor | None = None  # of the batch, where not all of them are kept
        self._index: torch.Tensor | slice = slice(0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes held for draft rows."""
        return 0 if self._logits is None or self._stats is None else self._logits.nbytes + self._stats.nbytes

    def begin(self, request_ids: list[str]) -> None:
        """The next writes are the drafts of these requests, in this order."""
        for request_id in request_ids:
            if request_id not in self._slots and (slot := self._free_slot()) is not None:
                self._slots[request_id] = slot
        self._writing = [i for i in request_ids if i in self._slots]
        kept = [row for row, i in enumerate(request_ids) if i in self._slots]
        self._rows = self._upload(kept) if len(kept) < len(request_ids) else None
        self._index = self._as_index([self._slots[i] for i in self._writing])

    def _free_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        used = len(self._slots)
        return used if self._max_requests is None or used < self._max_requests else None

    def write(self, step: int, logits: torch.Tensor, stats: torch.Tensor) -> None:
        """Keep draft `step`: logits [B, V] and row statistics [B, 4] in the order given to `begin`."""
        if self._rows is not None:
            logits, stats = logits[self._rows], stats[self._rows]
        self._reserve(logits, stats)
        assert self._logits is not None and self._stats is not None, "reserved above"
        self._logits[self._index, step] = logits
        self._stats[self._index, step] = stats
        for request_id in self._writing:
            self._kept[request_id] = step + 1

    def take(self, request_ids: list[str], wanted: Sequence[int], as_one_hot: Collection[str] = ()) -> Kept | None:
        """Where the rows of the first wanted[i] drafts of each request stand. They are then forgotten.

        as_one_hot: requests whose drafts are to be verified as one-hot in any case.
        None where nothing is wanted, and before the first write: then the whole batch is one-hot.
        """
        kept = [self._kept.pop(i, 0) for i in request_ids]
        if self._logits is None or self._stats is None or not any(wanted):
            return None
        rows, lost = [], 0
        for request_id, n, there in zip(request_ids, wanted, kept, strict=True):
            gone = n > there
            lost += n if gone else 0
            if gone or request_id in as_one_hot:
                rows += [NOT_KEPT] * n
            elif n:  # a request that drafts for the first time has no slot yet, and wants nothing
                first = self._slots[request_id] * self._n
                rows += range(first, first + n)
        return Kept(self._logits.flatten(0, 1), self._stats.flatten(0, 1), self._upload(rows), lost)

    def release(self, request_id: str) -> None:
        """The request is over: its slot is free again."""
        self._kept.pop(request_id, None)
        slot = self._slots.pop(request_id, None)
        if slot is not None:
            self._free.append(slot)

    def _reserve(self, logits: torch.Tensor, stats: torch.Tensor) -> None:
        needed = len(self._slots) + len(self._free)
        have = 0 if self._logits is None else self._logits.shape[0]
        if needed <= have:
            return
        slots = max(8, 2 * have, needed)
        if self._max_requests is not None:
            slots = min(slots, self._max_requests)
        grown = logits.new_zeros(slots, self._n, logits.shape[-1])
        grown_stats = stats.new_zeros(slots, self._n, NUM_STATS)
        if self._logits is not None and self._stats is not None:
            grown[:have], grown_stats[:have] = self._logits, self._stats
        self._logits, self._stats = grown, grown_stats

    def _as_index(self, slots: list[int]) -> torch.Tensor | slice:
        first = slots[0] if slots else 0
        if slots == list(range(first, first + len(slots))):
            return slice(first, first + len(slots))
        return self._upload(slots)

    def _upload(self, rows: list[int]) -> torch.Tensor:
        return to_device(torch.tensor(rows, dtype=torch.int64), self._device)
