"""specdec's own backends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import MANY_DRAWS, PENALTIES, ZERO_UNIFORM, Drafts, Implementation, Step
from specdec.sampling import ACCEPT, SamplingBatch
from specdec.verify import Draft, sample_draft, verify
from specdec.verify import reference as reference_module

ENGINE_LEVEL = "the engine's part, tested in tests/engines/vllm/test_lossless.py"
_FIXED_NUMBERS = "its Philox number is 0 once in 2^53 draws; tests/verify/test_backends_agree.py compares the decisions"
_SLOW = "sorts every row: minutes"
_SAMPLES = {"reference": 1000, "triton": 400}
_INTERPRETED = "minutes under Triton's interpreter"


class Ours(Implementation):
    """backend: a name of specdec.verify.backends()."""

    def __init__(self, backend: str) -> None:
        on_gpu = backend in ("triton", "cuda") and torch.cuda.is_available()
        self.name = backend
        self.device = "cuda" if on_gpu else "cpu"
        self.samples = 20_000 if on_gpu else _SAMPLES.get(backend, 20_000)
        self.lacks: Mapping[str, str] = {PENALTIES: ENGINE_LEVEL}
        if backend != "reference":
            self.lacks = {**self.lacks, ZERO_UNIFORM: _FIXED_NUMBERS}
        if backend == "reference" or (backend == "triton" and not on_gpu):
            self.lacks = {**self.lacks, MANY_DRAWS: _SLOW if backend == "reference" else _INTERPRETED}

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        own = self._batch(with_fresh_seeds(sampling, seeded))
        token_ids, stats = sample_draft(logits.to(self.device), own, step, self.name, on_bad_row="repair")
        return Drafts(token_ids.cpu(), logits, stats.cpu())

    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        return Drafts(token_ids, logits)

    def verify(self, step: Step) -> Tensor:
        sampling = self._batch(with_fresh_seeds(step.sampling, step.seeded))
        with acceptances_at_zero(step.zero_uniform):
            out = verify(
                step.target.to(self.device),
                self._draft(step),
                sampling,
                method=step.method,
                backend=self.name,
                on_bad_row="repair",
            )
        return out.token_ids.cpu()

    def _draft(self, step: Step) -> Draft:
        d = step.drafts
        token_ids, logits, stats = (
            None if x is None else x.to(self.device) for x in (d.token_ids, d.rows, d.extra)
        )  # fmt: skip
        assert token_ids is not None, "drafts have ids"
        rows = None
        if step.lost and logits is not None:
            request = torch.arange(len(step.counts)).repeat_interleave(torch.tensor(step.counts))
            gone = torch.isin(request, torch.tensor(step.lost))
            rows = torch.arange(len(request)).masked_fill(gone, -1).to(self.device)
        return Draft(token_ids, step.counts, logits, stats, rows)

    def _batch(self, sampling: SamplingBatch) -> SamplingBatch:
        names = ("temperature", "top_k", "top_p", "min_p", "seed", "position")
        return SamplingBatch(**{name: getattr(sampling, name).to(self.device) for name in names})


def with_fresh_seeds(sampling: SamplingBatch, seeded: Tensor) -> SamplingBatch:
    """Requests without a seed get one of their own, as in an engine."""
    if seeded.all():
        return sampling
    return replace(sampling, seed=torch.where(seeded, sampling.seed, SamplingBatch.uniform(len(sampling)).seed))


@contextmanager
def acceptances_at_zero(wanted: bool) -> Iterator[None]:
    """The reference's acceptance numbers are exactly 0, as a Philox number may be."""
    real = reference_module.uniform

    def changed(numbers: Mapping[int, Tensor], first_row: int, offset: int, purpose: int) -> Tensor:
        return real(numbers, first_row, offset, purpose) * (purpose != ACCEPT)

    if wanted:
        reference_module.uniform = changed
    try:
        yield
    finally:
        reference_module.uniform = real
