"""Draft rows between the step that proposes and the step that verifies, kept by request.

vLLM keeps them by batch position and, when one request missed a step, verifies the whole batch as if the drafts were
one-hot, which biases every output in it. Here a row belongs to a request: one that was left out of a step (token
budget) finds its rows again, and one whose rows are gone (its drafts were replaced by padding) is reported as having
none, so that its drafts are given up, which is exact.
"""

import torch


class DraftStore:
    """logits [slots, n, V] as they sampled the drafts, and their row statistics [slots, n, 4]; grows as needed.

    n: drafts per request at most. Memory: slots * n * V * (bytes of a logit) plus 32 bytes a row.
    """

    def __init__(self, num_drafts: int):
        self._n = num_drafts
        self._logits: torch.Tensor | None = None
        self._stats: torch.Tensor | None = None
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._kept: dict[str, int] = {}  # request -> drafts proposed and not yet verified
        self._writing: list[str] = []
        self._index: torch.Tensor | slice = slice(0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes held for draft rows."""
        return 0 if self._logits is None or self._stats is None else self._logits.nbytes + self._stats.nbytes

    def begin(self, request_ids: list[str]) -> None:
        """The next writes are the drafts of these requests, in this order."""
        self._writing = request_ids
        for request_id in request_ids:
            if request_id not in self._slots:
                self._slots[request_id] = self._free.pop() if self._free else len(self._slots)
        slots = [self._slots[i] for i in request_ids]
        self._index = _as_index(slots)

    def write(self, step: int, logits: torch.Tensor, stats: torch.Tensor) -> None:
        """Keep draft `step`: logits [B, V] and row statistics [B, 4] in the order given to `begin`."""
        self._reserve(logits, stats)
        assert self._logits is not None and self._stats is not None, "reserved above"
        self._logits[self._index, step] = logits
        self._stats[self._index, step] = stats
        for request_id in self._writing:
            self._kept[request_id] = step + 1

    def take(self, request_ids: list[str], wanted: list[int]) -> tuple[list[int], torch.Tensor, torch.Tensor] | None:
        """Rows of the first wanted[i] drafts of each request, and forget that they were kept.

        Returns (found per request: wanted[i], or 0 where the rows are gone; logits [sum(found), V]; stats
        [sum(found), 4]), or None where nothing was found.
        """
        found = [n if n <= self._kept.pop(i, 0) else 0 for i, n in zip(request_ids, wanted, strict=True)]
        if not any(found) or self._logits is None or self._stats is None:
            return None
        slots = [self._slots.get(i, 0) for i in request_ids]
        if slots == list(range(len(slots))) and all(n == self._n for n in found):
            return found, self._logits[: len(slots)].flatten(0, 1), self._stats[: len(slots)].flatten(0, 1)
        rows = [slot * self._n + step for slot, n in zip(slots, found, strict=True) for step in range(n)]
        index = torch.tensor(rows, device=self._logits.device)
        return found, self._logits.flatten(0, 1)[index], self._stats.flatten(0, 1)[index]

    def discard(self, request_ids: list[str]) -> None:
        """What was kept for these requests will not be verified."""
        for request_id in request_ids:
            self._kept.pop(request_id, None)

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
        grown = logits.new_empty(slots, self._n, logits.shape[-1])
        grown_stats = stats.new_empty(slots, self._n, stats.shape[-1])
        if self._logits is not None and self._stats is not None:
            grown[:have], grown_stats[:have] = self._logits, self._stats
        self._logits, self._stats = grown, grown_stats


def _as_index(slots: list[int]) -> torch.Tensor | slice:
    first = slots[0] if slots else 0
    if slots == list(range(first, first + len(slots))):
        return slice(first, first + len(slots))
    return torch.tensor(slots)
