"""vLLM's V2 runner's sampling kernels for the conformance suite, under Triton's interpreter or on a GPU.

What runs is its own: `SamplingStates` for temperature and filters, `rejection_sample`, and `gumbel_sample` for drafts,
called as `RejectionSampler._verify` and `DraftModelSpeculator.sample_draft` call them. Draft rows are logits, before
the temperature. Under the interpreter vLLM's placeholders for Triton must give way to the real thing: it needs a
process of its own, with TRITON_INTERPRET=1.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specdec.conformance.base import MANY_DRAWS, PENALTIES, ZERO_UNIFORM, Drafts, Implementation, Step
from specdec.conformance.implementations import interpreted
from specdec.sampling import SamplingBatch

_INTERPRETED = "minutes under Triton's interpreter"


class VllmV2(Implementation):
    name = "vllm-v2"
    lacks: Mapping[str, str] = {
        ZERO_UNIFORM: "its uniform numbers are kept from being 0 (tl_rand32)",
        PENALTIES: "needs the engine's request states",
    }

    def __init__(self) -> None:
        on_gpu = torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        self.samples = 20_000 if on_gpu else 400
        if not on_gpu:
            self.lacks = {**self.lacks, MANY_DRAWS: _INTERPRETED}
            _use_interpreted_triton()
        self._gumbel = importlib.import_module("vllm.v1.worker.gpu.sample.gumbel")
        self._states: Any = importlib.import_module("vllm.v1.worker.gpu.sample.states")
        if not on_gpu:
            vars(self._states)["UvaBackedTensor"] = PlainBuffer
        self._rejection = importlib.import_module("vllm.v1.worker.gpu.spec_decode.rejection_sampler_utils")
        self._one_block = [] if on_gpu else interpreted.one_block_per_row(self._rejection, self._gumbel)
        self._parameters = importlib.import_module("vllm.sampling_params").SamplingParams

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        """Positions as in the speculator: draft j is drawn at the position of the token before it."""
        batch, vocabulary = logits.shape
        states = self._requests(sampling, seeded, vocabulary)
        cache = torch.zeros(batch, 1, vocabulary, dtype=logits.dtype, device=self.device)
        token_ids = self._gumbel.gumbel_sample(
            logits.to(self.device),
            torch.arange(batch, dtype=torch.int32, device=self.device),
            states.temperature.gpu,
            states.seeds.gpu,
            (sampling.position - 1 + step).to(self.device),
            apply_temperature=True,
            is_drafting=True,
            logits_cache=cache,
            logits_cache_col=torch.tensor(0, dtype=torch.int32, device=self.device),
        )
        return Drafts(token_ids.to(torch.int32).cpu(), cache[:, 0].cpu())

    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        return Drafts(token_ids, logits)

    def verify(self, step: Step) -> Tensor:
        counts = torch.tensor(step.counts)
        batch, vocabulary, most = len(step.counts), step.target.shape[1], int(counts.max())
        states = self._requests(step.sampling, step.seeded, vocabulary)
        request = torch.arange(batch).repeat_interleave(counts + 1)
        first = torch.nn.functional.pad((counts + 1).cumsum(0), (1, 0))
        local = torch.arange(len(request)) - first[request]
        request, first, local = (x.to(self.device, torch.int32) for x in (request, first, local))
        logits = self._processed(step, states, request)
        sampled, num_sampled = self._rejection.rejection_sample(
            logits,
            self._cached_rows(step, most, vocabulary),
            self._draft_sampled(step),
            first,
            (step.sampling.position.to(self.device) - 1)[request.long()] + local,
            torch.arange(batch, dtype=torch.int32, device=self.device),
            request,
            local,
            states.temperature.gpu,
            states.seeds.gpu,
            most,
            use_block_verification=step.method == "block",
        )
        beyond = torch.arange(most + 1, device=self.device) >= num_sampled[:, None]
        return sampled.masked_fill(beyond, -1).cpu()

    def _processed(self, step: Step, states: Any, request: Tensor) -> Tensor:
        """As Sampler.apply_sampling_params, without the logits processors."""
        target = step.target.to(self.device)
        s = step.sampling
        plain = (s.temperature == 0) | ((s.temperature == 1) & (s.top_k == 0) & (s.top_p == 1) & (s.min_p == 0))
        if plain.all():
            return target
        logits = torch.empty_like(target, dtype=torch.float32).copy_(target)
        everyone = torch.arange(len(s)).numpy()
        states.apply_temperature(logits, request, everyone)
        states.apply_min_p(logits, request, everyone)
        return states.apply_top_k_top_p(logits, request, everyone)

    def _draft_sampled(self, step: Step) -> Tensor:
        """int32 [N + B]: each row's input token; that of a request's first row is its last token, not looked at."""
        last = torch.zeros(1, dtype=torch.int32)
        parts = [torch.cat([last, ids]) for ids in step.drafts.token_ids.split(step.counts)]
        return torch.cat(parts).to(self.device)

    def _cached_rows(self, step: Step, most: int, vocabulary: int) -> Tensor | None:
        """Draft logits by request state, [B, n_max, V]. A request keeps its own whatever step it sat out; one that has
        none (`lost`) finds what was there before."""
        rows = step.drafts.rows
        if rows is None:
            return None
        cache = torch.zeros(len(step.counts), most, vocabulary, dtype=rows.dtype)
        for b, part in enumerate(rows.split(step.counts)):
            if b not in step.lost:
                cache[b, : len(part)] = part
        return cache.to(self.device)

    def _requests(self, s: SamplingBatch, seeded: Tensor, vocabulary: int) -> Any:
        states = self._states.SamplingStates(len(s), vocabulary)
        for kernel in self._one_block:
            kernel.widest = vocabulary
        columns = (s.temperature, s.top_k, s.top_p, s.min_p, s.seed)
        for b, (t, k, p, low, seed) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            parameters = self._parameters(temperature=t, top_k=k, top_p=p, min_p=low, seed=seed if seeded[b] else None)
            states.add_request(b, parameters)
        states.apply_staged_writes()
        return states


class PlainBuffer:
    """In the place of UvaBackedTensor, which wants pinned memory."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        self.gpu = self.cpu = torch.zeros(size, dtype=dtype)
        self.np = self.cpu.numpy()

    def copy_to_uva(self) -> Tensor:
        return self.gpu


def _use_interpreted_triton() -> None:
    """vLLM finds no driver and takes placeholders for Triton's modules; the real ones interpret its kernels."""
    utils: Any = importlib.import_module("vllm.triton_utils")
    real = {"triton": "triton", "tl": "triton.language"}
    for name, module in real.items():
        setattr(utils, name, importlib.import_module(module))
    utils.tldevice = interpreted.LibDevice
    interpreted.allow_any_mask()
    interpreted.call_device_functions_directly()
