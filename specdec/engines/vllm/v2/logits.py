"""vLLM's logits processors, per draft prefix, and logprobs around the verify step."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores
from vllm.v1.worker.gpu.sample.states import NO_LOGPROBS

from specdec.engines.vllm.v2.batch import Layout, Step
from specdec.errors import SpecdecError
from specdec.sampling import SamplingBatch, filtered_logits


class Processors:
    """Everything that `Sampler.apply_sampling_params` does before temperature and filters, which are ours.

    These processors take each row with its own prefix: committed tokens from the device's state, drafts from the rows'
    input tokens.
    """

    def __init__(self, sampler: Any):
        _leave_filters_to_us(sampler.sampling_states)
        self._apply = sampler.apply_sampling_params
        parameters = inspect.signature(self._apply).parameters
        self._wanted = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
        known = set(_arguments(None, None))
        if unknown := [n for n in self._wanted if n not in known]:
            raise SpecdecError(
                f"this vLLM's Sampler.apply_sampling_params wants {unknown[0]!r}: use a version that specdec supports"
            )

    def __call__(self, logits: Tensor, step: Step) -> Tensor:
        """logits [N + B, V] as they are where no request of the batch has a processor, or else processed."""
        arguments = _arguments(logits, step)
        return self._apply(**{name: arguments[name]() for name in self._wanted})


def _arguments(logits: Any, step: Any) -> dict[str, Any]:
    """What the versions of apply_sampling_params ask for, by name."""
    return {
        "logits": lambda: logits,
        "expanded_idx_mapping": lambda: step.slot_of_row,
        "idx_mapping": lambda: step.slots,
        "idx_mapping_np": lambda: step.slots_np,
        "pos": lambda: step.position,
        "input_ids": lambda: step.input_ids,
        "expanded_local_pos": lambda: step.local,
        "seq_lens_upper_bound_np": lambda: step.longest,
    }


def _leave_filters_to_us(states: Any) -> None:
    """states: SamplingStates, which still keeps the parameters but no longer applies them.

    It also says for each request whether its logits need processing at all; no longer because of its filters.
    """
    add_request = states.add_request

    def add_request_and_say_no(slot: int, params: Any) -> bool:
        add_request(slot, params)
        return False

    states.add_request = add_request_and_say_no
    states.apply_temperature = states.apply_min_p = lambda *_: None
    states.apply_top_k_top_p = lambda logits, *_: logits


@dataclass(frozen=True)
class LogprobsWanted:
    """By the requests of a step: count, the most probable tokens of each row; listed, tokens that a request named."""

    count: int
    listed: int
    mode: str

    @property
    def filtered(self) -> bool:
        """Whether they are those of the filtered distributions."""
        return self.mode.startswith("processed")


def logprobs_wanted(sampler: Any, slots: np.ndarray) -> LogprobsWanted | None:
    """The most that any request of slots [B] wants; None: nobody wants any."""
    count = sampler.sampling_states.max_num_logprobs(slots)
    listed = sampler.logprob_token_ids_state.max_num_token_ids(slots)
    if count == NO_LOGPROBS and listed == 0:
        return None
    return LogprobsWanted(max(count, 0), listed, sampler.logprobs_mode)


def logprobs_of(
    wanted: LogprobsWanted,
    token_ids: Tensor,
    raw: Tensor,
    processed: Tensor,
    sampling: SamplingBatch,
    step: Step,
    sampler: Any,
) -> LogprobsTensors:
    """Logprobs of token_ids [B, n + 1] (-1 padded) as `logprobs_mode` asks.

    raw, processed [N + B, V]: rows before and after the processors. Rows behind a request's last token are filled with
    something finite; vLLM takes only the first of each request.
    """
    request, rows = step.layout.request_of_row, raw
    if wanted.filtered:
        each = sampling.rows(request)
        rows = filtered_logits(processed, each.temperature, each.top_k, each.top_p, each.min_p)
    sampled = token_ids[request, step.local.to(torch.int64)].to(torch.int64).clamp(min=0)
    return compute_topk_scores(
        rows,
        wanted.count,
        sampled,
        _bounds(step.layout),
        logprob_token_ids_state=sampler.logprob_token_ids_state,
        expanded_idx_mapping=step.slot_of_row,
        max_per_req_token_ids=wanted.listed,
        logits_mode=wanted.mode.endswith("logits"),
    )


def joined_logprobs(parts: Sequence[LogprobsTensors], layout: Layout) -> LogprobsTensors:
    """Those of a whole step, from those of its parts; layout: the step's."""
    names = ("logprob_token_ids", "logprobs", "selected_token_ranks")
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return parts[0]._replace(**columns, cu_num_generated_tokens=_bounds(layout))


def _bounds(layout: Layout) -> list[int] | None:
    """None where each request has one row, as vLLM wants it."""
    return layout.bounds if layout.draft_row.numel() else None
