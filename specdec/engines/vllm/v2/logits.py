"""vLLM's logits processors, per draft prefix, and logprobs around the verify step."""

import inspect
from typing import Any

import torch
from torch import Tensor
from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores
from vllm.v1.worker.gpu.sample.states import NO_LOGPROBS

from specdec.engines.vllm.v2.batch import Step
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
        known = set(_arguments(None, None, None))
        if unknown := [n for n in self._wanted if n not in known]:
            raise SpecdecError(
                f"this vLLM's Sampler.apply_sampling_params wants {unknown[0]!r}: use a version that specdec supports"
            )

    def __call__(self, logits: Tensor, batch: Any, step: Step) -> Tensor:
        """logits [N + B, V] as they are where no request of the batch has a processor, or else processed."""
        arguments = _arguments(logits, batch, step)
        return self._apply(**{name: arguments[name]() for name in self._wanted})


def _arguments(logits: Any, batch: Any, step: Any) -> dict[str, Any]:
    """What the versions of apply_sampling_params ask for, by name."""
    return {
        "logits": lambda: logits,
        "expanded_idx_mapping": lambda: batch.expanded_idx_mapping,
        "idx_mapping": lambda: batch.idx_mapping,
        "idx_mapping_np": lambda: batch.idx_mapping_np,
        "pos": lambda: step.position,
        "input_ids": lambda: step.input_ids,
        "expanded_local_pos": lambda: batch.expanded_local_pos,
        "seq_lens_upper_bound_np": lambda: batch.seq_lens_cpu_upper_bound.numpy(),
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


def logprobs_of(
    token_ids: Tensor, raw: Tensor, processed: Tensor, sampling: SamplingBatch, batch: Any, step: Step, sampler: Any
) -> Any:
    """LogprobsTensors of token_ids [B, n + 1] (-1 padded) as `logprobs_mode` asks, or None where nobody wants any.

    raw, processed [N + B, V]: rows before and after the processors. Rows behind a request's last token are filled with
    something finite; vLLM takes only the first of each request.
    """
    slots, by_id = batch.idx_mapping_np, sampler.logprob_token_ids_state
    count, listed = sampler.sampling_states.max_num_logprobs(slots), by_id.max_num_token_ids(slots)
    if count == NO_LOGPROBS and listed == 0:
        return None
    request, mode = step.layout.request_of_row, sampler.logprobs_mode
    rows = raw
    if mode.startswith("processed"):
        each = sampling.rows(request)
        rows = filtered_logits(processed, each.temperature, each.top_k, each.top_p, each.min_p)
    sampled = token_ids[request, batch.expanded_local_pos.to(torch.int64)].to(torch.int64).clamp(min=0)
    return compute_topk_scores(
        rows,
        max(count, 0),
        sampled,
        batch.cu_num_logits_np.tolist() if len(rows) != len(slots) else None,
        logprob_token_ids_state=by_id,
        expanded_idx_mapping=batch.expanded_idx_mapping,
        max_per_req_token_ids=listed,
        logits_mode=mode.endswith("logits"),
    )
