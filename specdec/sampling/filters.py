"""Temperature, min-p, top-k and top-p as ONE threshold on the logit: a token is kept iff l >= threshold.

With w(v) = exp((l(v) - max l) / T), in vLLM's order (vllm/v1/sample/sampler.py, ops/topk_topp_sampler.py):
1. min-p:  w >= min_p                        threshold  max l + T ln(min_p)
2. top-k:  the k-th largest logit            threshold  that logit
3. top-p:  with Z the mass that 1 and 2 leave, the lowest logit such that the tokens above it weigh less than top_p Z

Ties: every token tied with the last one kept is kept too, in all three. vLLM's sort-based top-p keeps an arbitrary part
of such a tie, its top-k all of it. At least the maximum is always kept.
"""

import torch
from torch import Tensor

from specdec.sampling.batch import GREEDY_BELOW

WORKSPACE = 256 << 20  # bytes that filtered_logits takes beside its result, about
BYTES_TO_SORT = 48  # per logit, in `thresholds`


def thresholds(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """float64 [R], in units of the raw logits; -inf where nothing is filtered.

    logits [R, V], any floating dtype, not written; the parameters [R] as in SamplingBatch. Greedy rows use T = 1.
    """
    exact = logits.to(torch.float64)
    t = _usable_temperature(temperature)
    p_min, p_top = min_p.to(torch.float64), top_p.to(torch.float64)
    vocab = exact.shape[-1]
    ordered = exact.sort(dim=-1, descending=True).values
    largest = ordered[:, 0]
    threshold = torch.where(p_min > 0, largest + t * p_min.log(), -torch.inf)
    k = torch.where((top_k > 0) & (top_k < vocab), top_k, vocab).to(torch.int64)
    kth = ordered.gather(-1, k[:, None] - 1)[:, 0]
    threshold = torch.where(k < vocab, torch.maximum(threshold, kth), threshold)
    w = torch.where(ordered >= threshold[:, None], ((ordered - largest[:, None]) / t[:, None]).exp(), 0.0)
    mass = w.cumsum(-1)
    above = torch.nn.functional.pad(mass[:, :-1], (1, 0))
    kept = (above < p_top[:, None] * mass[:, -1:]).sum(-1).clamp(min=1)
    nucleus = ordered.gather(-1, kept[:, None] - 1)[:, 0]
    return torch.where(p_top < 1, torch.maximum(threshold, nucleus), threshold)


def weights(logits: Tensor, temperature: Tensor, threshold: Tensor) -> Tensor:
    """float64 [R, V]: exp((l - max) / T) where l >= threshold, else 0. logits [R, V]; temperature, threshold [R]."""
    exact = logits.to(torch.float64)
    w = ((exact - exact.amax(-1, keepdim=True)) / _usable_temperature(temperature)[:, None]).exp()
    return torch.where(exact >= threshold[:, None], w, 0.0)


def filtered_logits(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """float32 [R, V]: l / T with the filtered entries at -inf, for processed logprobs. Greedy rows use T = 1.

    logits [R, V], any floating dtype, not written; the parameters [R] as in SamplingBatch.
    """
    scaled = logits.to(torch.float32) / _usable_temperature(temperature).to(torch.float32)[:, None]
    at_once = max(1, WORKSPACE // (BYTES_TO_SORT * logits.shape[-1]))
    for part in (slice(begin, begin + at_once) for begin in range(0, len(logits), at_once)):
        rows = logits[part]
        threshold = thresholds(rows, temperature[part], top_k[part], top_p[part], min_p[part])
        scaled[part].masked_fill_(rows.to(torch.float64) < threshold[:, None], -torch.inf)
    return scaled


def _usable_temperature(temperature: Tensor) -> Tensor:
    """float64 of that shape, with 1 for greedy rows."""
    return torch.where(temperature < GREEDY_BELOW, 1.0, temperature.to(torch.float64))
