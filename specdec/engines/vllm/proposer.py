"""Drafting with the MTP head: vLLM's own loop over the steps, with our sampling and our keeping of draft rows."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from vllm.v1.spec_decode.eagle import EagleProposer

from specdec.drafting import DraftScales
from specdec.engines.vllm.drafts import DraftStore
from specdec.engines.vllm.requests import RequestTable
from specdec.engines.vllm.shared import scaled_logits
from specdec.engines.vllm.waiting import Rows, WaitingRows
from specdec.verify import sample_draft


class MTPProposer(EagleProposer):
    """Draws each draft with the request's own temperature, filters and seed, and keeps the very logits it drew from.

    Those are the head's times the request's draft scale (specdec/drafting).
    """

    def attach(
        self,
        runner: Any,
        table: RequestTable,
        store: DraftStore | None,
        scales: DraftScales | None,
        backend: str,
        never: bool = False,
    ) -> None:
        """store None: greedy drafts, verified as one-hot. scales None: all are 1. never: no step asks for drafts, so
        that nothing is ever read from the head's cache.
        """
        self._never = never
        self._runner, self._table, self._store, self._backend = runner, table, store, backend
        self._scales = scales
        self._waiting, self._verifies = WaitingRows(self.max_num_tokens), False
        self._step = 0
        self._sampling: Any = None

    def propose(  # type: ignore[override]
        self,
        num_speculative_tokens: int,
        target_token_ids: torch.Tensor,
        target_positions: torch.Tensor,
        target_hidden_states: torch.Tensor,
        *,
        common_attn_metadata: Any,
        token_indices_to_sample: torch.Tensor | None,
        **rest: Any,
    ) -> torch.Tensor:
        rows = Rows(target_token_ids, target_positions, target_hidden_states, common_attn_metadata)
        if num_speculative_tokens == 0 and (empty := self._waits(rows)) is not None:
            return empty
        if self._verifies or not self._waiting.fit(rows):
            # Drafts of an earlier step have come late (token budget), and belong in between; or the step is a full one.
            self._waiting.clear()
        elif self._waiting:
            # With each request's last row to sample from.
            rows, token_indices_to_sample = self._waiting.joined(self._runner.input_batch.req_ids, rows), None
        if self._store is not None and num_speculative_tokens > 0:
            self._prepare(rows.positions, token_indices_to_sample, rows.attention)
        return super().propose(
            num_speculative_tokens,
            rows.token_ids,
            rows.positions,
            rows.hidden,
            common_attn_metadata=rows.attention,
            token_indices_to_sample=token_indices_to_sample,
            **rest,
        )

    def before(self, propose: Callable[..., Any]) -> Callable[..., Any]:
        """The runner's `propose_draft_token_ids`: where a step's rows may wait, nothing is made ready for the head."""
        runner = self._runner
        plain = not (runner.use_async_scheduling or runner.use_aux_hidden_state_outputs or runner.supports_mm_inputs)
        if not plain or hasattr(runner.get_model(), "get_mtp_target_hidden_states"):
            return propose

        def proposed(scheduled: Any, sampled: Any, metadata: Any, hidden: torch.Tensor, *rest: Any) -> Any:
            if scheduled.num_spec_tokens_to_schedule == 0:
                count, attention = scheduled.total_num_scheduled_tokens, rest[-2]
                rows = Rows(runner.input_ids.gpu[:count], runner._get_positions(count), hidden[:count], attention)
                if (empty := self._waits(rows)) is not None:
                    return empty
            return propose(scheduled, sampled, metadata, hidden, *rest)

        return proposed

    def _waits(self, rows: Rows) -> torch.Tensor | None:
        """Of a step that asks for no drafts: the drafts, int64 [B, 0], where its rows wait or are of no use; None where
        they may not wait.

        Rows with drafts among them may have been rejected, and M-RoPE's positions are three.
        """
        request_ids = self._runner.input_batch.req_ids
        if not self._never:
            if self._verifies or rows.positions.dim() != 1 or not self._waiting.have_room(request_ids, rows):
                return None
            self._waiting.keep(request_ids, rows)
        return rows.token_ids.new_empty(len(request_ids), 0, dtype=torch.int64)

    def begin(self, scheduled: Any) -> None:
        """scheduled: the SchedulerOutput of the step to come."""
        self._verifies = bool(scheduled.scheduled_spec_decode_tokens)
        for request_id in scheduled.preempted_req_ids or ():
            self.forget(request_id)

    def forget(self, request_id: str) -> None:
        """The request is over, or begins anew."""
        self._waiting.forget(request_id)

    def prepare_next_token_ids_padded(
        self, sampled_token_ids: torch.Tensor, requests: Any, batch: Any, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As vLLM's, but the head sees behind each chunk of a prompt the token that follows there.

        vLLM gives it the prompt's last token, which leaves a wrong entry in the head's cache at every chunk's end.
        """
        unfinished = self._runner.discard_request_mask.np[: batch.num_reqs]
        if unfinished.any():
            scheduled = np.diff(self._runner.query_start_loc.np[: batch.num_reqs + 1])
            behind = batch.num_computed_tokens_cpu[: batch.num_reqs] + scheduled
            known = np.where(unfinished, behind + 1, batch.num_tokens_no_spec[: batch.num_reqs])
            batch = SimpleNamespace(
                num_reqs=batch.num_reqs, req_ids=batch.req_ids, vocab_size=batch.vocab_size, num_tokens_no_spec=known
            )
        return super().prepare_next_token_ids_padded(sampled_token_ids, requests, batch, *rest)

    def _prepare(self, positions: torch.Tensor, indices: torch.Tensor | None, attention: Any) -> None:
        # The last input token stands at `positions[index]`; the target sampled the one after it, the first draft is
        # the one after that. Read from the device tensor: host-side counts lag under asynchronous scheduling.
        last = attention.query_start_loc[1:] - 1 if indices is None else indices
        request_ids = self._runner.input_batch.req_ids
        if positions.dim() == 2:  # M-RoPE: [3, tokens], alike for text
            positions = positions[0]
        first_draft = positions[last].to(torch.int64) + 2
        self._sampling = self._table.batch(request_ids, self._runner.requests, first_draft)
        self._step = 0
        assert self._store is not None, "greedy drafts keep no rows"
        self._store.begin(request_ids)

    def _sample_draft_tokens(
        self, hidden_states: torch.Tensor, sampling_metadata: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._store is None:
            return self._greedy_sample(hidden_states), None
        scale = None if self._scales is None else self._scales.of(self._table.draft_places)
        logits = scaled_logits(self.model, hidden_states, scale, cast(Any, self.model).compute_logits)
        token_ids, stats = sample_draft(logits, self._sampling, self._step, self._backend, on_bad_row="repair")
        self._store.write(self._step, logits, stats)
        self._step += 1
        return token_ids, None
