"""A step's rows, drafts and positions, from the V2 runner's InputBatch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.engines.vllm.upload import to_device


@dataclass(frozen=True, eq=False)
class Layout:
    """What the numbers of drafts alone decide; B requests, N drafts, rows request-major: draft rows, then bonus row.

    A row is named by its input token, as in vLLM: a request's first row has the last sampled token for input and
    verifies draft 0, whose own row is the next.
    """

    counts: list[int]  # [B]
    first_row: Tensor  # int64 [B]
    draft_row: Tensor  # int64 [N]: the row whose input is the draft
    request_of_row: Tensor  # int64 [N + B]


class Layouts:
    """Makes layouts, and keeps the last one: from one step to the next it is mostly the same."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last: Layout | None = None

    def of(self, counts: list[int]) -> Layout:
        if self._last is None or self._last.counts != counts:
            rows = np.asarray(counts, dtype=np.int64) + 1
            first = np.cumsum(rows) - rows
            every = np.ones(int(rows.sum()), dtype=bool)
            every[first] = False
            parts = [first, np.flatnonzero(every), np.repeat(np.arange(len(counts)), rows)]
            on_device = to_device(torch.from_numpy(np.concatenate(parts)), self._device)
            self._last = Layout(counts, *on_device.split([len(p) for p in parts]))
        return self._last


@dataclass(frozen=True, eq=False)
class Step:
    """The tensors of one step, all on the device."""

    layout: Layout
    input_ids: Tensor  # [N + B], -1 for drafts that nobody proposed
    position: Tensor  # int64 [N + B], of the input tokens
    slots: Tensor  # int64 [B]
    begins: Tensor  # int64 [B]: position of the first token that the step decides

    @classmethod
    def of(cls, batch: Any, layout: Layout, prefill_len: Tensor) -> "Step":
        """batch: InputBatch; prefill_len [slots]: tokens that a request came with."""
        input_ids, position = (x[batch.logits_indices] for x in (batch.input_ids, batch.positions))
        if layout.draft_row.numel():
            local = batch.expanded_local_pos
            # A step that begins inside the prompt (whose cache came from elsewhere) has placeholders for drafts.
            unproposed = (local > 0) & (position - local < prefill_len[batch.expanded_idx_mapping.to(torch.int64)])
            input_ids = input_ids.masked_fill(unproposed, -1)
        begins = position[layout.first_row].to(torch.int64) + 1
        return cls(layout, input_ids, position, batch.idx_mapping.to(torch.int64), begins)


def num_drafts(batch: Any) -> list[int]:
    """[B]: drafts of each request, as scheduled; known to the host."""
    counts = batch.num_draft_tokens_per_req
    return [0] * batch.num_reqs if counts is None else counts.tolist()
