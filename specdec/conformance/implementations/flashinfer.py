"""FlashInfer's chain speculative sampling, on a GPU: `flashinfer.sampling` as its documentation states it.

Draft and target rows are probabilities, from its own softmax, top-k and top-p renormalisation. It has one generator for
a batch, no seeds of requests, and draws no drafts: those come from its `sampling_from_probs`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specdec.conformance.base import (
    BLOCK,
    LOST_ROWS,
    MIN_P,
    ONE_HOT,
    PENALTIES,
    PLACEHOLDERS,
    RAGGED,
    SEEDS,
    ZERO_UNIFORM,
    Drafts,
    Implementation,
    Step,
)
from specdec.sampling import SamplingBatch


class FlashInferChain(Implementation):
    name = "flashinfer"
    device = "cuda"
    lacks: Mapping[str, str] = {
        BLOCK: "token rule only",
        LOST_ROWS: "every draft has a row",
        MIN_P: "not among its renormalisations",
        ONE_HOT: "every draft has a row",
        PENALTIES: "the caller's part",
        PLACEHOLDERS: "every draft has a row",
        RAGGED: "every request has the same number of drafts",
        SEEDS: "one generator for the batch",
        ZERO_UNIFORM: "its uniform numbers cannot be set",
    }

    def __init__(self) -> None:
        self._sampling: Any = importlib.import_module("flashinfer.sampling")

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        rows = self._probabilities(logits, sampling)
        return Drafts(self._sampling.sampling_from_probs(rows).to(torch.int32).cpu(), rows.cpu())

    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        return Drafts(token_ids, self._probabilities(logits, sampling).cpu())

    def verify(self, step: Step) -> Tensor:
        batch, n = len(step.counts), max(step.counts)
        each = torch.arange(batch).repeat_interleave(torch.tensor(step.counts) + 1)
        target = self._probabilities(step.target, step.sampling.rows(each))
        if n == 0:
            return self._sampling.sampling_from_probs(target)[:, None].cpu()
        rows = step.drafts.rows
        assert rows is not None, "one-hot drafts are not claimed"
        tokens, _, _ = self._sampling.chain_speculative_sampling(
            rows.to(self.device).view(batch, n, -1),
            step.drafts.token_ids.to(self.device, torch.int32).view(batch, n),
            target.view(batch, n + 1, -1),
        )
        return tokens.cpu()

    def _probabilities(self, logits: Tensor, s: SamplingBatch) -> Tensor:
        """float32 [R, V] of logits [R, V] and an entry of sampling per row; greedy rows: their argmax."""
        temperature = torch.where(s.temperature == 0, 1.0, s.temperature).to(self.device)
        p = self._sampling.softmax(logits.to(self.device).float().contiguous(), temperature=temperature)
        top_k = torch.where(s.temperature == 0, 1, torch.where(s.top_k == 0, logits.shape[1], s.top_k))
        if bool((top_k < logits.shape[1]).any()):
            p = self._sampling.top_k_renorm_probs(p, top_k.to(self.device, torch.int32))
        if bool((s.top_p < 1).any()):
            p = self._sampling.top_p_renorm_probs(p, s.top_p.to(self.device))
        return p
