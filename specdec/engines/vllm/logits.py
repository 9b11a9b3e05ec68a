"""Logits processors and logprobs around the verify step, for draft rows and bonus rows alike.

Rows are request-major as the runner computes them: each request's draft rows, then its bonus row.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from vllm.config.model import PROCESSED_LOGPROBS_MODES
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor
from vllm.v1.sample.logits_processor.state import LogitsProcessors

from specdec.sampling import SamplingBatch, filtered_logits
from specdec.upload import to_device


def processors_active(metadata: Any) -> bool:
    """Whether anything in this batch changes logits before temperature and filters."""
    holder = metadata.thinking_budget_state_holder
    return bool(
        not metadata.no_penalties
        or metadata.bad_words_token_ids
        or metadata.allowed_token_ids_mask is not None
        or (holder is not None and holder.has_tracked_requests())
        or any(_processor_active(p) for p in metadata.logitsprocs.non_argmax_invariant)
    )


def _processor_active(processor: Any) -> bool:
    if isinstance(processor, MinTokensLogitsProcessor):
        return bool(processor.min_toks)
    if isinstance(processor, LogitBiasLogitsProcessor):
        return bool(processor.biases)
    return True


def processed_rows(
    logits: torch.Tensor, metadata: Any, spec: Any, sampler: Any, rejection_sampler: Any
) -> torch.Tensor:
    """float32 copy of logits [N + B, V], or [B, V] without drafts, after vLLM's own processors, per draft prefix.

    All but the budgets for thinking, which come last (thinking.py).
    """
    metadata = replace(metadata, thinking_budget_state_holder=None)
    if spec is None:
        return sampler.apply_logits_processors(logits.to(torch.float32, copy=True), metadata, False)
    everything = metadata.logitsprocs.non_argmax_invariant
    min_tokens = [p for p in everything if isinstance(p, MinTokensLogitsProcessor)]
    biases = [p for p in everything if isinstance(p, LogitBiasLogitsProcessor)]
    others = LogitsProcessors([p for p in metadata.logitsprocs.all if p not in min_tokens])
    metadata = replace(metadata, logitsprocs=others)
    rows = torch.empty_like(logits, dtype=torch.float32)
    bonus = logits[spec.bonus_logits_indices].to(torch.float32)
    rows[spec.bonus_logits_indices] = sampler.apply_logits_processors(bonus, metadata, True)
    drafts = logits[spec.target_logits_indices].to(torch.float32)
    # vLLM's verification knows no biases. Before the penalties, as in sampling: a penalty scales what the bias made.
    for bias in biases:
        _add_biases(drafts, bias.biases, spec.num_draft_tokens)
    rows[spec.target_logits_indices] = rejection_sampler.apply_logits_processors(drafts, metadata, spec)
    # vLLM counts the bonus row's token as the next one, not as the one behind the drafts, and so forbids the end for
    # too long; taken as one row more of its request, each row gets its own count.
    for processor in min_tokens:
        rows = processor.apply_with_spec_decode(rows, [n + 1 for n in spec.num_draft_tokens])
    return rows


def _add_biases(drafts: torch.Tensor, biases: dict[int, dict[int, float]], num_drafts: list[int]) -> None:
    """Adds request i's {token id: bias} to each of its draft rows, in place."""
    first = np.cumsum([0, *num_drafts])
    for request, of_tokens in biases.items():
        tokens = to_device(torch.tensor(list(of_tokens)), drafts.device)
        values = to_device(torch.tensor(list(of_tokens.values()), dtype=drafts.dtype), drafts.device)
        drafts[first[request] : first[request + 1], tokens] += values


def logprobs_of(
    token_ids: torch.Tensor,
    raw: torch.Tensor,
    processed: torch.Tensor,
    sampling: SamplingBatch,
    num_drafts: list[int],
    metadata: Any,
    sampler: Any,
) -> LogprobsTensors | None:
    """Logprobs of token_ids [B, n + 1] (-1 padded) as `logprobs_mode` asks, or None where no request wants any.

    raw, processed [N + B, V]: rows before and after the logits processors. Rows of padding are filled with something
    finite; the runner drops them with the padding.
    """
    if metadata.max_num_logprobs is None and not metadata.logprob_token_ids:
        return None
    counts = to_device(torch.tensor(num_drafts), raw.device) + 1
    rows = raw.to(torch.float32)
    if sampler.logprobs_mode in PROCESSED_LOGPROBS_MODES:
        requests = torch.arange(len(num_drafts), device=raw.device)
        each = sampling.rows(requests.repeat_interleave(counts, output_size=len(raw)))
        rows = filtered_logits(processed, each.temperature, each.top_k, each.top_p, each.min_p)
    starts = counts.cumsum(0) - counts
    offsets = torch.arange(token_ids.shape[1], device=raw.device)
    index = (starts[:, None] + offsets).clamp(max=rows.shape[0] - 1).flatten()
    values = rows[index]
    if not sampler.logprobs_mode.endswith("logits"):
        values = sampler.compute_logprobs(values)
    tokens = token_ids.flatten().to(torch.int64).clamp(min=0)
    if metadata.logprob_token_ids:  # {request: ids}; where one request asks so, vLLM answers the whole batch so
        width = token_ids.shape[1]
        of_rows = {i * width + j: ids for i, ids in metadata.logprob_token_ids.items() for j in range(width)}
        return sampler.gather_specific_token_logprobs(values, of_rows, tokens)
    return sampler.gather_logprobs(values, metadata.max_num_logprobs, tokens)
