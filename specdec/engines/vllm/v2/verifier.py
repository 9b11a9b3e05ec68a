"""The verify step in vLLM's V2 runner: what stands in the places of its sampler and of its rejection sampler.

It samples every token of every request, with drafts or without, so that a seeded request draws the same tokens
whatever shares its batch. Nothing here waits for the device.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from vllm.v1.worker.gpu.metrics.logits import get_num_nans
from vllm.v1.worker.gpu.sample.output import SamplerOutput

from specdec.config import VerifySettings
from specdec.drafting import DraftScales
from specdec.engines.vllm.clock import Clock, NoClock
from specdec.engines.vllm.figures import Batch, Figures
from specdec.engines.vllm.v2.batch import Layouts, Step, num_drafts
from specdec.engines.vllm.v2.logits import LogprobsWanted, Processors, joined_logprobs, logprobs_of, logprobs_wanted
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.metrics.cells import EVERY
from specdec.metrics.exact import Exact, Looked
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, verify

# Bytes of the float32 copies of target rows, which processors and processed logprobs need, at any one time. (A copy of
# all of them is 2.3 GiB for 1,024 requests with 3 drafts and 151,936 tokens.) One request's are always made.
WORKSPACE = 2**30


class Verifier:
    """sampler: vLLM's own Sampler, whose state and processors stay in use: what is not defined here is asked of it.

    rows None: drafts are one-hot. reports: whether figures are wanted; `take_figures` has those of the last step.
    scales None: drafts are not scaled.
    """

    enable_adaptive_verification = False  # asked of a rejection sampler; refused by install.py

    def __init__(
        self, sampler: Any, slots: SlotTable, rows: DraftRows | None, settings: VerifySettings, reports: bool,
        scales: DraftScales | None = None, clock: Clock | None = None,
    ):  # fmt: skip
        self._sampler, self._slots, self._rows, self._reports = sampler, slots, rows, reports
        self._clock = clock or NoClock()
        self._exact = Exact(settings.backend, overlaps=settings.method == "token")
        self._scales = scales
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
        self._clock.end("target")
        self._clock.begin("verify")
        layout = self._layouts.of(num_drafts(batch))
        prefill_len = self._prefill_len.gpu
        step = Step.of(batch, layout, prefill_len)
        num_nans = get_num_nans(logits) if self._sampler.compute_nans else None
        sampling = self._slots.step_sampling(step.slots, step.slots_np, step.begins)
        out, lost, logprobs, looked = self._in_parts(logits, step, sampling, invalid_drafts)
        self._clock.end("verify")
        sampled = out.num_accepted + 1
        # A chunk of a prompt before its last one decides nothing.
        unfinished = batch.seq_lens[: batch.num_reqs] < prefill_len[step.slots.to(torch.int64)]
        if self._reports:
            asked = Batch(list(batch.req_ids), layout.counts, self._slots.asking, self._slots.tenants)
            self._figures = Figures.of(asked, out, unfinished, lost, looked)
        rejected = batch.cu_num_logits[1:] - batch.cu_num_logits[:-1] - sampled
        return SamplerOutput(
            sampled_token_ids=out.token_ids.to(torch.int64),
            logprobs_tensors=logprobs,
            num_nans=num_nans,
            num_sampled=sampled.masked_fill(unfinished, 0),
            num_rejected=rejected.masked_fill(unfinished, 0),
        )

    def _in_parts(
        self, logits: Tensor, step: Step, sampling: SamplingBatch, invalid_drafts: Tensor | None
    ) -> tuple[VerifyOutput, Tensor | int, Any, Looked | None]:
        """The step's output, how many drafts had lost their rows, logprobs, and what was looked at.

        All at once, or by ranges of requests that have room for the copies of their rows (WORKSPACE).
        """
        layout, wanted = step.layout, logprobs_wanted(self._sampler, step.slots_np)
        copies = 2 if wanted is not None and wanted.filtered else 1
        ranges = layout.ranges(WORKSPACE // (copies * logits.shape[-1] * torch.float32.itemsize))
        asking = self._slots.asking
        if len(ranges) <= 1:
            return self._part(logits, step, sampling, invalid_drafts, wanted, asking)
        parts = []
        for begin, end in ranges:
            rows = slice(layout.bounds[begin], layout.bounds[end])
            invalid = None if invalid_drafts is None else invalid_drafts[rows]
            requests = sampling.rows(torch.arange(begin, end, device=logits.device))
            here = [place - begin for place in asking if begin <= place < end]
            parts.append(self._part(logits[rows], step.part(begin, end), requests, invalid, wanted, here))
        outs, lost, logprobs, looked = zip(*parts, strict=True)
        first_rows = [layout.bounds[begin] for begin, _ in ranges]
        out = joined(outs, first_rows, max(layout.counts) + 1)
        seen = Looked.joined(looked, [row - begin for row, (begin, _) in zip(first_rows, ranges, strict=True)])
        return out, sum(lost), None if wanted is None else joined_logprobs(logprobs, layout), seen

    def _part(
        self,
        logits: Tensor,
        step: Step,
        sampling: SamplingBatch,
        invalid_drafts: Tensor | None,
        wanted: LogprobsWanted | None,
        asking: Sequence[int],
    ) -> tuple[VerifyOutput, Tensor | int, Any, Looked | None]:
        processed = self._processors(logits, step)
        draft, lost = self._drafts(step, invalid_drafts)
        out = verify(processed, draft, sampling, method=self._method, backend=self._backend, on_bad_row="repair")
        if self._scales is not None:
            self._scales.look(processed, draft, sampling, self._slots.draft_place[step.slots], self._backend)
        looked = self._exact.look(processed, draft, sampling, asking) if self._reports else None
        if wanted is None:
            return out, lost, None, looked
        logprobs = logprobs_of(wanted, out.token_ids, logits, processed, sampling, step, self._sampler)
        return out, lost, logprobs, looked

    def _drafts(self, step: Step, invalid_drafts: Tensor | None) -> tuple[Draft, Tensor | int]:
        """The drafts to verify, and how many of them have no row any more."""
        at = step.layout.draft_row
        token_ids = step.input_ids[at]
        if invalid_drafts is not None:
            token_ids = token_ids.masked_fill(invalid_drafts[at], -1)
        draft = Draft(token_ids, step.layout.counts)
        if self._rows is None or not len(at):
            return draft, 0
        local, slots = step.local[at].to(torch.int64), step.slot_of_row[at].to(torch.int64)
        begins = step.position[at].to(torch.int64) - local + 1
        rows, grammar = self._rows.find(slots, local - 1, begins), self._slots.has_grammar[slots]
        draft.logits, draft.row_stats = self._rows.flat_logits, self._rows.flat_stats
        draft.rows = rows.masked_fill(grammar, -1)
        return draft, ((rows < 0) & ~grammar & (token_ids >= 0)).sum() if self._reports else 0

    def count(self, on: bool) -> None:
        """Whether steps are looked at for the counters."""
        self._exact.every = EVERY if on else 0

    def take_figures(self) -> Figures | None:
        """Those of the last step, once."""
        figures, self._figures = self._figures, None
        return figures


def joined(parts: Sequence[VerifyOutput], first_rows: list[int], width: int) -> VerifyOutput:
    """One output of those of a step's parts. first_rows: where each part's rows begin; width: of token_ids."""
    bad = []
    for out, row in zip(parts, first_rows, strict=True):
        assert out.bad_row is not None, "asked for repair"
        bad.append(torch.where(out.bad_row < 0, -1, out.bad_row + row))
    return VerifyOutput(
        torch.cat([pad(out.token_ids, (0, width - out.token_ids.shape[1]), value=-1) for out in parts]),
        torch.cat([out.num_accepted for out in parts]),
        None,
        torch.cat([out.acceptance_probability for out in parts]),
        torch.cat(bad),
    )
