"""Drawing drafts: what stands in the place of a V2 speculator's `sample_draft`.

vLLM captures it in CUDA graphs, in some versions one graph for all steps but the first, replayed with another number in
`draft_step`. So the step is known on the device alone. Ours does device work only: its tensors stay in place or come
from the graph's own pool, and the step goes into the random numbers by way of the position: draft j of the verify step
that begins at s draws at position s + 2^32 j, where nothing else draws (specdec/sampling/philox.py).
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from specdec.drafting import DraftScales
from specdec.engines.vllm.shared import scaled_logits
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.errors import SpecdecError
from specdec.verify import sample_draft

# Speculators that draw one draft of each request per call, one after the other, each with its own position.
SEQUENTIAL = ("MTPSpeculator", "EagleSpeculator", "MultiModuleMTPSpeculator")


class Drafter:
    """Draws with the request's own temperature, filters and seed, from the very rows that it keeps."""

    def __init__(
        self, speculator: Any, slots: SlotTable, rows: DraftRows, backend: str, scales: DraftScales | None = None
    ):
        """scales None: all are 1."""
        self._speculator, self._slots, self._rows, self._backend = speculator, slots, rows, backend
        self._scales = scales
        names = inspect.signature(type(speculator).sample_draft).parameters
        # vLLM names a draw by the position before the drawn token; older versions by the last input token's, one less.
        self._ahead = 1 if "sample_src_positions" in names else 2

    def sample(
        self,
        hidden_states: Tensor,
        positions: Tensor,
        idx_mapping: Tensor,
        temperature: Tensor,
        seeds: Tensor,
        draft_step: Tensor,
        draft_logits: Tensor | None,
        spec_step_idx: int = 0,
        **_: Any,
    ) -> Tensor:
        """int64 [B] drafts from hidden_states [B, d], for slots idx_mapping [B], -1 for padding.

        positions [B]: see `_ahead`; draft_step [] int64: 0 for a step's first draft. vLLM's own temperature, seeds and
        cache are not used.
        """
        scale = None if self._scales is None else self._scales.of(self._slots.draft_place[idx_mapping])
        logits = self._logits(hidden_states, spec_step_idx, scale)
        begins = positions.to(torch.int64) + self._ahead - draft_step  # the position of the step's first draft
        sampling = self._slots.sampling(idx_mapping, begins + (draft_step << 32))
        token_ids, stats = sample_draft(logits, sampling, 0, self._backend, on_bad_row="repair")
        self._rows.write(idx_mapping, draft_step, begins, logits, stats)
        return token_ids.to(torch.int64)

    def _logits(self, hidden_states: Tensor, step: int, scale: Tensor | None) -> Tensor:
        """[B, V] as they will be kept: in another dtype they would be another distribution."""
        model, by_step = self._speculator.model, getattr(self._speculator, "compute_draft_logits", None)
        compute = (lambda hidden: by_step(hidden, step)) if by_step else model.compute_logits
        logits = scaled_logits(model, hidden_states, scale, compute)
        vocab_size = self._rows.logits.shape[-1]
        if logits.shape[-1] != vocab_size:
            raise SpecdecError(
                f"the draft model has {logits.shape[-1]} logits, the target {vocab_size}: use a draft model of the "
                "target's vocabulary, or greedy drafts"
            )
        return logits.to(self._rows.logits.dtype)
