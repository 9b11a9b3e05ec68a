"""A step's rows, drafts and positions, from the V2 runner's InputBatch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.upload import to_device


@dataclass(frozen=True, eq=False)
class Layout:
    """What the numbers of drafts alone decide; B requests, N drafts, rows request-major: draft rows, then bonus row.

    A row is named by its input token, as in vLLM: a request's first row has the last sampled token for input and
    verifies draft 0, whose own row is the next.
    """

    counts: list[int]  # [B]
    bounds: list[int]  # [B + 1]: request b has the rows bounds[b] .. bounds[b + 1] - 1
    first_row: Tensor  # int64 [B]
    draft_row: Tensor  # int64 [N]: the row whose input is the draft
    request_of_row: Tensor  # int64 [N + B]

    def ranges(self, most: int) -> list[tuple[int, int]]:
        """The requests in ranges [begin, end) of `most` rows at most, or of one request that has more."""
        found, begin = [], 0
        for end in range(1, len(self.counts) + 1):
            if end == len(self.counts) or self.bounds[end + 1] - self.bounds[begin] > most:
                found.append((begin, end))
                begin = end
        return found

    def part(self, begin: int, end: int) -> "Layout":
        """Of the requests begin .. end - 1 alone."""
        rows = slice(self.bounds[begin], self.bounds[end])
        drafts = slice(rows.start - begin, rows.stop - end)
        return Layout(
            self.counts[begin:end],
            [bound - rows.start for bound in self.bounds[begin : end + 1]],
            self.first_row[begin:end] - rows.start,
            self.draft_row[drafts] - rows.start,
            self.request_of_row[rows] - begin,
        )


class Layouts:
    """Makes layouts, and keeps the last one: from one step to the next it is mostly the same."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last: Layout | None = None

    def of(self, counts: list[int]) -> Layout:
        if self._last is None or self._last.counts != counts:
            rows = np.asarray(counts, dtype=np.int64) + 1
            ends = np.cumsum(rows)
            first = ends - rows
            every = np.ones(int(rows.sum()), dtype=bool)
            every[first] = False
            parts = [first, np.flatnonzero(every), np.repeat(np.arange(len(counts)), rows)]
            on_device = to_device(torch.from_numpy(np.concatenate(parts)), self._device)
            self._last = Layout(counts, [0, *ends.tolist()], *on_device.split([len(p) for p in parts]))
        return self._last


@dataclass(frozen=True, eq=False)
class Step:
    """One step of some requests; its tensors are on the device."""

    layout: Layout
    input_ids: Tensor  # [N + B], -1 for drafts that nobody proposed
    position: Tensor  # int64 [N + B], of the input tokens
    local: Tensor  # int32 [N + B]: of each row, among those of its request
    slot_of_row: Tensor  # int32 [N + B]
    slots: Tensor  # int32 [B]
    slots_np: np.ndarray  # [B], the same
    begins: Tensor  # int64 [B]: position of the first token that the step decides
    longest: np.ndarray  # [B]: a bound on the length of each request

    @classmethod
    def of(cls, batch: Any, layout: Layout, prefill_len: Tensor) -> "Step":
        """batch: InputBatch; prefill_len [slots]: tokens that a request came with."""
        input_ids, position = (x[batch.logits_indices] for x in (batch.input_ids, batch.positions))
        local, slot_of_row = batch.expanded_local_pos, batch.expanded_idx_mapping
        if layout.draft_row.numel():
            # A step that begins inside the prompt (whose cache came from elsewhere) has placeholders for drafts.
            unproposed = (local > 0) & (position - local < prefill_len[slot_of_row.to(torch.int64)])
            input_ids = input_ids.masked_fill(unproposed, -1)
        return cls(
            layout, input_ids, position, local, slot_of_row, batch.idx_mapping, batch.idx_mapping_np,
            begins=position[layout.first_row].to(torch.int64) + 1,
            longest=batch.seq_lens_cpu_upper_bound.numpy(),
        )  # fmt: skip

    def part(self, begin: int, end: int) -> "Step":
        """Of the requests begin .. end - 1 alone."""
        rows, requests = slice(self.layout.bounds[begin], self.layout.bounds[end]), slice(begin, end)
        return Step(
            self.layout.part(begin, end),
            self.input_ids[rows], self.position[rows], self.local[rows], self.slot_of_row[rows],
            self.slots[requests], self.slots_np[requests], self.begins[requests], self.longest[requests],
        )  # fmt: skip


def num_drafts(batch: Any) -> list[int]:
    """[B]: drafts of each request, as scheduled; known to the host."""
    counts = batch.num_draft_tokens_per_req
    return [0] * batch.num_reqs if counts is None else counts.tolist()
