"""The verify step in vLLM's V1 runner: what stands in the place of `GPUModelRunner._sample`.

It samples every token of every request, with drafts or without, so that a seeded request draws the same tokens
whatever shares its batch. Under asynchronous scheduling nothing here waits for the device: positions come from there,
and figures go out with vLLM's own copy of the outputs. What vLLM itself waits for stays: the tokens so far, in a batch
with penalties, bad words or budgets for thinking.
"""

from typing import Any

import torch
from vllm.v1.outputs import SamplerOutput

from specdec.config import VerifySettings
from specdec.drafting import DraftScales
from specdec.engines.vllm.clock import Clock, NoClock
from specdec.engines.vllm.drafts import DraftStore
from specdec.engines.vllm.figures import Batch, Figures
from specdec.engines.vllm.logits import logprobs_of, processed_rows, processors_active
from specdec.engines.vllm.requests import RequestTable
from specdec.engines.vllm.thinking import ThinkingBudgets
from specdec.metrics.cells import EVERY
from specdec.metrics.exact import Exact
from specdec.upload import to_device
from specdec.verify import Draft, VerifyOutput, verify


class Verifier:
    """runner: the V1 model runner; store: None where drafts are one-hot; scales: None where all are 1;
    reports: whether figures are wanted.
    """

    def __init__(
        self,
        runner: Any,
        table: RequestTable,
        store: DraftStore | None,
        settings: VerifySettings,
        reports: bool,
        scales: DraftScales | None = None,
        clock: Clock | None = None,
    ):
        self._runner, self._table, self._store, self._scales = runner, table, store, scales
        self._method, self._backend = settings.method, settings.backend
        self._clock = clock or NoClock()
        self._exact = Exact(settings.backend, overlaps=settings.method == "token") if reports else None
        rows = runner.max_num_reqs * (runner.num_spec_tokens + 1)
        self._thinking = ThinkingBudgets(getattr(runner.vllm_config, "reasoning_config", None), rows, runner.device)
        self._figures: Figures | None = None

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._thinking.forget(request_id)

    def sample(self, logits: torch.Tensor | None, spec: Any) -> SamplerOutput:
        """In the place of `GPUModelRunner._sample(logits [N + B, V], spec_decode_metadata)`."""
        runner = self._runner
        if logits is None or not runner.requests:  # other pipeline ranks, warm-up calls
            return type(runner)._sample(runner, logits, spec)
        self._clock.end("target")
        self._clock.begin("verify")
        metadata = runner.input_batch.sampling_metadata
        # Ours are seeded by position. vLLM's would be wound back where a prompt comes in chunks, which those of a CPU
        # cannot do: it would be the end of the engine.
        runner.input_batch.generators.clear()
        self._refresh_output_ids(spec)
        raw = logits
        if processors_active(metadata):
            logits = processed_rows(logits, metadata, spec, runner.sampler, getattr(runner, "rejection_sampler", None))
            self._limit_thinking(logits, metadata, spec)
        num_drafts = spec.num_draft_tokens if spec is not None else [0] * runner.input_batch.num_reqs
        sampling = self._sampling(num_drafts)
        out = self._verify(logits, spec, num_drafts, sampling)
        logprobs = logprobs_of(out.token_ids, raw, logits, sampling, num_drafts, metadata, runner.sampler)
        return SamplerOutput(sampled_token_ids=out.token_ids, logprobs_tensors=logprobs)

    def _limit_thinking(self, logits: torch.Tensor, metadata: Any, spec: Any) -> None:
        holder, request_ids = metadata.thinking_budget_state_holder, self._runner.input_batch.req_ids
        if holder is None or not holder.has_tracked_requests():
            return
        # The list of drafts may be longer than the batch, which has shrunk.
        drafts = metadata.spec_token_ids[: len(request_ids)] if spec is not None else [[]] * len(request_ids)
        self._thinking.apply(logits, request_ids, self._runner.requests, metadata.output_token_ids, drafts)

    def _refresh_output_ids(self, spec: Any) -> None:
        """As vLLM's own `_sample` does under asynchronous scheduling, for penalties and bad words."""
        runner = self._runner
        runner.input_batch.update_async_output_token_ids()
        if spec is not None and runner.use_async_scheduling and runner._draft_token_req_ids is not None:
            runner.input_batch.update_async_spec_token_ids(runner._get_draft_token_ids_cpu()[0])

    def _sampling(self, num_drafts: list[int]) -> Any:
        runner, count = self._runner, len(num_drafts)
        # Of the sequence behind the step, drafts and all; the first draft stands where the first token is decided.
        position = runner.seq_lens[:count].to(torch.int64)
        if any(num_drafts):
            position = position - to_device(torch.tensor(num_drafts), position.device)
        return self._table.batch(runner.input_batch.req_ids, runner.requests, position)

    def _verify(self, logits: torch.Tensor, spec: Any, num_drafts: list[int], sampling: Any) -> VerifyOutput:
        request_ids = self._runner.input_batch.req_ids
        kept, lost = None, 0
        if self._store is not None:
            # Taken even where nothing is wanted: rows of drafts that were not scheduled must not be found later.
            kept = self._store.take(request_ids, num_drafts, as_one_hot=self._table.with_grammar)
        token_ids = logits.new_empty(0, dtype=torch.int32) if spec is None else spec.draft_token_ids
        draft = Draft(token_ids, num_drafts)
        if kept is not None and token_ids.numel():
            draft.logits, draft.row_stats, draft.rows, lost = kept
        out = verify(logits, draft, sampling, method=self._method, backend=self._backend, on_bad_row="repair")
        self._clock.end("verify")
        if self._exact is not None:
            looked = self._exact.look(logits, draft, sampling, self._table.asking)
            batch = Batch(list(request_ids), num_drafts, self._table.asking, self._table.tenants)
            unfinished = self._runner.discard_request_mask.gpu[: len(num_drafts)].clone()  # the runner writes it anew
            self._figures = Figures.of(batch, out, unfinished, lost, looked)
        if self._scales is not None:
            self._scales.look(logits, draft, sampling, self._table.draft_places, self._backend)
        return out

    def count(self, on: bool) -> None:
        """Whether steps are looked at for the counters."""
        if self._exact is not None:
            self._exact.every = EVERY if on else 0

    def take_figures(self) -> Figures | None:
        """Those of the last step, once."""
        figures, self._figures = self._figures, None
        return figures
