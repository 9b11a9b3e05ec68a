"""Sampling parameters by request slot, on the device."""

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from specdec.drafting import GREEDY_PLACE
from specdec.engines.vllm.requests import Admissions, RequestSampling, places_of
from specdec.sampling import SamplingBatch
from specdec.upload import to_device


class SlotTable:
    """columns: SamplingBatch over slots + 1 entries, whose position is not used.

    The last entry is what slot -1 finds, which is how vLLM marks the padded rows of a CUDA graph: greedy, so that no
    parameter is out of range. The tensors stay where they are for good: CUDA graphs read them.
    """

    def __init__(self, admissions: Admissions, num_slots: int, device: torch.device):
        self._admissions, self._device = admissions, device
        self.columns = SamplingBatch.uniform(num_slots + 1, temperature=0.0, seed=0, device=device)
        # Where a request's draft scale stands in DraftScales.values; for padding, with the greedy ones.
        self.draft_place = torch.full((num_slots + 1,), GREEDY_PLACE, dtype=torch.int64, device=device)
        self.has_grammar = torch.zeros(num_slots + 1, dtype=torch.bool, device=device)
        self._new: dict[int, RequestSampling] = {}
        self._asked: dict[int, RequestSampling] = {}  # of each slot
        self.asking: tuple[int, ...] = ()  # of the last step_sampling's batch: see figures.Batch
        self.tenants: tuple[str, ...] | None = None  # likewise
        self._batch: tuple[np.ndarray, SamplingBatch] | None = None

    def add(self, slot: int, params: object) -> None:
        """A request with these SamplingParams moves into the slot; on the device from the next `write` on."""
        self._new[slot] = self._asked[slot] = self._admissions.read(params)

    def write(self) -> Tensor | None:
        """Brings what was added to the device; the slots [k] that have changed hands, on the device, or None."""
        if not self._new:
            return None
        slots = self._upload(list(self._new), torch.int64)
        requests = list(self._new.values())
        for field in fields(SamplingBatch):
            if field.name != "position":
                column = getattr(self.columns, field.name)
                column.index_copy_(0, slots, self._upload([getattr(r, field.name) for r in requests], column.dtype))
        self.draft_place.index_copy_(0, slots, self._upload([r.draft_place for r in requests], torch.int64))
        self.has_grammar.index_copy_(0, slots, self._upload([r.has_grammar for r in requests], torch.bool))
        self._new = {}
        self._batch = None
        return slots

    def sampling(self, slots: Tensor, position: Tensor) -> SamplingBatch:
        """SamplingBatch [B] of slots [B] (-1: padding), position [B] int64. Nothing but device work."""
        batch = self.columns.rows(slots)
        batch.position = position
        return batch

    def step_sampling(self, slots: Tensor, slots_np: np.ndarray, position: Tensor) -> SamplingBatch:
        """The same for a verify step; slots_np: the same slots on the host. Gathered once per change of the batch."""
        if self._batch is None or not np.array_equal(self._batch[0], slots_np):
            self._batch = slots_np.copy(), self.columns.rows(slots)
            self.asking, self.tenants = places_of([self._asked[slot] for slot in slots_np.tolist()])
        self._batch[1].position = position
        return self._batch[1]

    def _upload(self, values: list, dtype: torch.dtype) -> Tensor:
        return to_device(torch.tensor(values, dtype=dtype), self._device)
