"""The verify step in vLLM's V2 runner: what stands in the places of its sampler and of its rejection sampler.

It samples every token of every request, with drafts or without, so that a seeded request draws the same tokens
whatever shares its batch. Nothing here waits for the device.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.worker.gpu.metrics.logits import get_num_nans
from vllm.v1.worker.gpu.sample.output import SamplerOutput

from specdec.config import VerifySettings
from specdec.engines.vllm.figures import Figures
from specdec.engines.vllm.v2.batch import Layouts, Step, num_drafts
from specdec.engines.vllm.v2.logits import Processors, logprobs_of
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, verify


class Verifier:
    """sampler: vLLM's own Sampler, whose state and processors stay in use: what is not defined here is asked of it.

    rows None: drafts are one-hot. reports: whether figures are wanted; `take_figures` has those of the last step.
    """

    enable_adaptive_verification = False  # asked of a rejection sampler; refused by install.py

    def __init__(self, sampler: Any, slots: SlotTable, rows: DraftRows | None, settings: VerifySettings, reports: bool):
        self._sampler, self._slots, self._rows, self._reports = sampler, slots, rows, reports
        self._method, self._backend = settings.method, settings.backend
        self._processors = Processors(sampler)
        self._prefill_len = sampler.req_states.prefill_len  # its `gpu` is another tensor from one step to the next
        self._layouts = Layouts(sampler.req_states.device)
        self._figures: Figures | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def add_request(self, slot: int, *settings: Any) -> None:
        """settings: SamplingParams, behind the prompt's length in older versions."""
        self._sampler.add_request(slot, *settings)
        self._slots.add(slot, settings[-1])

    def apply_staged_writes(self) -> None:
        self._sampler.apply_staged_writes()
        changed = self._slots.write()
        if changed is not None and self._rows is not None:
            self._rows.forget(changed)

    def __call__(
        self, logits: Tensor, batch: Any, draft_logits: Tensor | None = None, invalid_drafts: Tensor | None = None
    ) -> SamplerOutput:
        """logits [N + B, V], which a grammar's mask has gone over; batch: InputBatch. draft_logits is vLLM's own cache.

        invalid_drafts [N + B] bool: rows whose input is a draft that the grammar's mask did not reach.
        """
        layout = self._layouts.of(num_drafts(batch))
        prefill_len = self._prefill_len.gpu
        step = Step.of(batch, layout, prefill_len)
        num_nans = get_num_nans(logits) if self._sampler.compute_nans else None
        processed = self._processors(logits, batch, step)
        sampling = self._slots.step_sampling(step.slots, batch.idx_mapping_np, step.begins)
        out = self._verify(processed, batch, step, sampling, invalid_drafts)
        sampled = out.num_accepted + 1
        # A chunk of a prompt before its last one decides nothing.
        unfinished = batch.seq_lens[: batch.num_reqs] < prefill_len[step.slots]
        rejected = batch.cu_num_logits[1:] - batch.cu_num_logits[:-1] - sampled
        return SamplerOutput(
            sampled_token_ids=out.token_ids.to(torch.int64),
            logprobs_tensors=logprobs_of(out.token_ids, logits, processed, sampling, batch, step, self._sampler),
            num_nans=num_nans,
            num_sampled=sampled.masked_fill(unfinished, 0),
            num_rejected=rejected.masked_fill(unfinished, 0),
        )

    def _verify(
        self, logits: Tensor, batch: Any, step: Step, sampling: SamplingBatch, invalid_drafts: Tensor | None
    ) -> VerifyOutput:
        at = step.layout.draft_row
        token_ids = step.input_ids[at]
        if invalid_drafts is not None:
            token_ids = token_ids.masked_fill(invalid_drafts[at], -1)
        draft = Draft(token_ids, step.layout.counts)
        lost: Tensor | int = 0
        if self._rows is not None and len(at):
            local = batch.expanded_local_pos[at].to(torch.int64)
            slots = batch.expanded_idx_mapping[at].to(torch.int64)
            begins = step.position[at].to(torch.int64) - local + 1
            rows, grammar = self._rows.find(slots, local - 1, begins), self._slots.has_grammar[slots]
            draft.logits, draft.row_stats = self._rows.flat_logits, self._rows.flat_stats
            draft.rows = rows.masked_fill(grammar, -1)
            lost = ((rows < 0) & ~grammar & (token_ids >= 0)).sum() if self._reports else 0
        out = verify(logits, draft, sampling, method=self._method, backend=self._backend, on_bad_row="repair")
        if self._reports:
            self._figures = Figures.of(batch.req_ids, step.layout.counts, out, lost)
        return out

    def take_figures(self) -> Figures | None:
        """Those of the last step, once."""
        figures, self._figures = self._figures, None
        return figures
