"""Budgets for thinking under speculation: every row is treated as sampling without drafts would treat its prefix.

vLLM counts a request's budget down in a state that moves on once per step. With drafts it guesses from their number how
far the step will come, and forces one row per request at most: the output's law is then another. Here vLLM's own state
moves token by token, as it does without speculation: once over the tokens that stay, and on copies over the drafts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from specdec.engines.vllm.patches import require


@dataclass
class _Tracked:
    params: Any  # the request's, by identity: an id may come back with others
    state: dict[str, Any]  # vLLM's, moved on over `length` output tokens
    length: int


class ThinkingBudgets:
    """The budgets of all requests that have one.

    reasoning_config: the engine's, which says which tokens begin and end thinking; None: no budgets are served.
    rows: rows of logits in a step at most.
    """

    def __init__(self, reasoning_config: Any, rows: int, device: torch.device):
        self._requests: dict[str, _Tracked] = {}
        self._holder = None
        if reasoning_config is not None:
            from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

            needed = ("_init_state_entry", "_update_think_state", "apply_to_logits")
            require("ThinkingBudgetStateHolder", dir(ThinkingBudgetStateHolder), *needed)
            self._holder = ThinkingBudgetStateHolder(reasoning_config, rows, 0, device, False)

    def forget(self, request_id: str) -> None:
        self._requests.pop(request_id, None)

    def apply(
        self,
        rows: torch.Tensor,
        request_ids: Sequence[str],
        requests: Any,
        output_ids: Sequence[list[int]],
        draft_ids: Sequence[list[int]],
    ) -> None:
        """Forces the end of thinking in rows [N + B, V], in place: each request's draft rows, then its bonus row.

        requests: request id -> the runner's state; output_ids, draft_ids: of each request of the batch.
        """
        if self._holder is None:
            return
        states: dict[int, dict[str, Any]] = {}
        row = 0
        for request_id, output, drafts in zip(request_ids, output_ids, draft_ids, strict=True):
            if requests[request_id].sampling_params.thinking_token_budget is not None:
                committed = self._committed(request_id, requests[request_id], output)
                states |= enumerate(self._along(committed, output, drafts), start=row)
            row += len(drafts) + 1
        self._holder._state = states
        self._holder.apply_to_logits(rows, False, None)

    def _committed(self, request_id: str, request: Any, output: list[int]) -> dict[str, Any]:
        """The state over the output so far, moved on from where it was left."""
        known, params = self._requests.get(request_id), request.sampling_params
        # An output that has become shorter (tokens thrown away) was counted in part: from the beginning then.
        if known is None or known.params is not params or len(output) < known.length:
            assert self._holder is not None, "checked by apply"
            state = self._holder._init_state_entry(request.prompt_token_ids, params.thinking_token_budget)
            known = self._requests[request_id] = _Tracked(params, state, -1)
        for length in range(known.length + 1, len(output) + 1):
            self._move(known.state, output[:length])
        known.length = len(output)
        return known.state

    def _along(self, state: dict[str, Any], output: list[int], drafts: list[int]) -> list[dict[str, Any]]:
        """The states after no, one, ... all of the drafts."""
        states = [dict(state)]  # a flat copy: vLLM replaces the lists in it, and does not write to them
        for n in range(1, len(drafts) + 1):
            states.append(dict(states[-1]))
            self._move(states[-1], [*output, *drafts[:n]])
        return states

    def _move(self, state: dict[str, Any], output: list[int]) -> None:
        assert self._holder is not None, "checked by apply"
        state |= {"output_tok_ids": output, "spec_token_ids": [], "in_spec_mode": False, "force_index": []}
        self._holder._update_think_state(state)
        if "scan_offset" in state:
            # vLLM looks through the whole output each time for a marker that was not there: only its end is new.
            markers = self._holder.think_start_token_ids, self._holder.think_end_token_ids
            searched = len(output) - max(map(len, markers)) + 1
            state["scan_offset"] = max(state["scan_offset"], searched)
