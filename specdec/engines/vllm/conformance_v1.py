"""vLLM's V1 sampler for the conformance suite, called as its model runner calls it. On a machine without a GPU.

Its draft rows are probabilities: softmax(logits / T), without top-k and top-p, which V1 leaves out when it drafts.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from specdec.conformance.base import BLOCK, MIN_P, Drafts, Implementation, Step
from specdec.sampling import SamplingBatch

REFUSED = "vLLM refuses it under speculation (SamplingParams._validate_spec_decode)"


class VllmV1(Implementation):
    """Stock. Memory that is never written holds NaN here (torch.utils.deterministic.fill_uninitialized_memory), where
    it holds anything in an engine: the same on every run."""

    name = "vllm-v1"
    samples = 4000
    lacks: Mapping[str, str] = {MIN_P: REFUSED, BLOCK: "V2 runner only"}

    def __init__(self) -> None:
        register_cpu_kernels()
        torch.use_deterministic_algorithms(True, warn_only=True)
        self._rejection: Any = importlib.import_module("vllm.v1.sample.rejection_sampler")
        self._proposer = importlib.import_module("vllm.v1.spec_decode.llm_base_proposer")
        self._sampler = importlib.import_module("vllm.v1.sample.sampler").Sampler()
        self._verifier = self._rejection.RejectionSampler(self._sampler)
        self._generators: dict[tuple[int, int], tuple[int, torch.Generator]] = {}

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        metadata = self._metadata(sampling, {})
        token_ids, rows = self._proposer.compute_probs_and_sample_next_token(logits.clone(), metadata)
        return Drafts(token_ids.to(torch.int32), rows)

    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        t = torch.where(sampling.temperature == 0, 1.0, sampling.temperature)
        return Drafts(token_ids, (logits / t[:, None]).softmax(-1, dtype=torch.float32))

    def verify(self, step: Step) -> Tensor:
        generators = self._generators_of(step)
        metadata = self._metadata(step.sampling, generators, step)
        with zero_uniforms(step.zero_uniform):
            if sum(step.counts) == 0:  # the engine then samples without the verifier
                logits = step.target.to(torch.float32, copy=True)
                return self._sampler(logits=logits, sampling_metadata=metadata).sampled_token_ids
            drafts = self._draft_metadata(step)
            rows = self._rows(step, drafts)
            return self._verifier(drafts, rows, step.target, metadata).sampled_token_ids

    def _rows(self, step: Step, drafts: Any) -> Tensor | None:
        """Through the model runner's own look-up by request id."""
        if step.drafts.rows is None or not step.lost:
            return step.drafts.rows
        runner = importlib.import_module("vllm.v1.worker.gpu_model_runner").GPUModelRunner
        most, batch = max(step.counts), len(step.counts)
        stored = torch.zeros(batch, most, step.drafts.rows.shape[1])
        first = 0
        for b, n in enumerate(step.counts):
            stored[b, :n] = step.drafts.rows[first : first + n]
            first += n
        there = [b for b in range(batch) if b not in step.lost]
        state = SimpleNamespace(
            _draft_probs=stored[there],
            _draft_prob_req_ids=[str(b) for b in there],
            input_batch=SimpleNamespace(req_ids=[str(b) for b in range(batch)]),
        )
        return runner._get_spec_decode_draft_probs(state, drafts)

    def _draft_metadata(self, step: Step) -> Any:
        """As GPUModelRunner._calc_spec_decode_metadata."""
        counts = torch.tensor(step.counts, dtype=torch.int32)
        ends = (counts + 1).cumsum(0, dtype=torch.int32)
        is_bonus = torch.zeros(int(ends[-1]), dtype=torch.bool)
        is_bonus[(ends - 1).long()] = True
        kind = importlib.import_module("vllm.v1.spec_decode.metadata").SpecDecodeMetadata
        return kind(
            draft_token_ids=step.drafts.token_ids,
            num_draft_tokens=step.counts,
            cu_num_draft_tokens=counts.cumsum(0, dtype=torch.int32),
            cu_num_sampled_tokens=ends,
            target_logits_indices=(~is_bonus).nonzero()[:, 0].to(torch.int32),
            bonus_logits_indices=(ends - 1).to(torch.int32),
            logits_indices=torch.arange(int(ends[-1]), dtype=torch.int32),
        )

    def _metadata(self, s: SamplingBatch, generators: dict[int, torch.Generator], step: Step | None = None) -> Any:
        kind = importlib.import_module("vllm.v1.sample.metadata").SamplingMetadata
        processors = importlib.import_module("vllm.v1.sample.logits_processor").LogitsProcessors()
        vocabulary = 0 if step is None else step.target.shape[1]
        greedy, batch = s.temperature == 0, len(s)
        fields: dict[str, Any] = dict.fromkeys(kind.__dataclass_fields__)
        fields |= {
            "temperature": s.temperature,
            "all_greedy": bool(greedy.all()),
            "all_random": not bool(greedy.any()),
            "top_k": torch.where(s.top_k == 0, vocabulary, s.top_k) if bool((s.top_k > 0).any()) else None,
            "top_p": s.top_p if bool((s.top_p < 1).any()) else None,
            "generators": generators,
            "no_penalties": True,
            "output_token_ids": [[] for _ in range(batch)],
            "bad_words_token_ids": {},
            "logitsprocs": processors,
        }
        if step is not None and step.presence_penalty is not None:
            none = torch.zeros(batch)
            fields |= {
                "no_penalties": False,
                "prompt_token_ids": torch.full((batch, 1), vocabulary),
                "presence_penalties": step.presence_penalty,
                "frequency_penalties": none,
                "repetition_penalties": none + 1,
                "spec_token_ids": [ids.tolist() for ids in step.drafts.token_ids.split(step.counts)],
            }
        return kind(**fields)

    def _generators_of(self, step: Step) -> dict[int, torch.Generator]:
        """One per seeded request. Its state moves on from step to step; a position that comes again begins anew."""
        found: dict[int, torch.Generator] = {}
        count: dict[int, int] = {}
        for b, (seed, position) in enumerate(
            zip(step.sampling.seed.tolist(), step.sampling.position.tolist(), strict=True)
        ):
            if not step.seeded[b]:
                continue
            key = (seed, count.setdefault(seed, 0))
            count[seed] += 1
            before, generator = self._generators.get(key, (position, None))
            if generator is None or position <= before:
                generator = torch.Generator().manual_seed(seed)
            self._generators[key] = (position, generator)
            found[b] = generator
        return found


class Mended(VllmV1):
    """With an `expand_batch_to_tokens` that works: what is left shows."""

    name = "vllm-v1-mended"

    def __init__(self) -> None:
        super().__init__()
        self._rejection.expand_batch_to_tokens = _expand


def _expand(x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    return torch.where(x == replace_from, replace_to, x).repeat_interleave(counts)


def zero_uniforms(wanted: bool) -> Any:
    """Unseeded acceptance numbers come from torch.rand."""

    def zeros(*size: Any, **how: Any) -> Tensor:
        return torch.zeros(*size, **how)

    return mock.patch("torch.rand", zeros) if wanted else mock.patch.dict({})


@cache
def register_cpu_kernels() -> None:
    platform = importlib.import_module("vllm.platforms").current_platform
    if platform.is_cpu():
        platform.import_kernels()
        platform.register_triton_kernel_overrides()
