"""The verify steps that are timed: rows in which a few tokens hold most of the mass, and a head like its target."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft

FILTERS: dict[str, dict[str, float]] = {
    "T=1": {},
    "T=0.8": {"temperature": 0.8},
    "T=0.8 k=50": {"temperature": 0.8, "top_k": 50},
    "T=0.8 k=50 p=0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "T=0.8 k=50 p=0.95 min-p=0.02": {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.02},
}


@dataclass(frozen=True)
class Shape:
    batch: int
    drafts: int  # per request
    vocabulary: int
    dtype: str  # "bfloat16" or "float32"
    filters: str  # a key of FILTERS

    @property
    def floor_bytes(self) -> int:
        """Target rows and draft rows, each read once."""
        rows = self.batch * (2 * self.drafts + 1)
        return rows * self.vocabulary * getattr(torch, self.dtype).itemsize

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Case:
    shape: Shape
    target: Tensor  # [batch * (drafts + 1), V]
    draft: Draft
    sampling: SamplingBatch

    def clone(self) -> "Case":
        """The same step elsewhere in memory."""
        logits = self.draft.logits
        assert logits is not None, "bench drafts are sampled"
        return replace(self, target=self.target.clone(), draft=replace(self.draft, logits=logits.clone()))

    def first(self, requests: int) -> "Case":
        """The step of the first requests alone: they must get the same tokens as among all."""
        n, draft = self.shape.drafts, self.draft
        assert draft.logits is not None and draft.row_stats is not None, "bench drafts are sampled"
        drafts = slice(0, requests * n)
        few = Draft(draft.token_ids[drafts], [n] * requests, draft.logits[drafts], draft.row_stats[drafts])
        index = torch.arange(requests, device=self.target.device)
        return Case(self.shape, self.target[: requests * (n + 1)], few, self.sampling.rows(index))


def make_case(shape: Shape, device: str, noise: float) -> Case:
    """Logits 4 N(0, 1); the head's are the target's plus `noise` N(0, 1), which sets the acceptance."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    dtype, n, vocabulary = getattr(torch, shape.dtype), shape.drafts, shape.vocabulary
    sampling = SamplingBatch.uniform(shape.batch, seed=1, position=5, device=device, **FILTERS[shape.filters])  # type: ignore[arg-type]
    # Seeds differ, so that requests are rejected at different places.
    sampling.seed = torch.arange(shape.batch, device=device)
    target = torch.empty(shape.batch, n + 1, vocabulary, dtype=dtype, device=device)
    head = torch.empty(shape.batch, n, vocabulary, dtype=dtype, device=device)
    for request in range(shape.batch):  # one at a time: float32 rows of a whole batch may not fit
        row = 4 * normal(n + 1, vocabulary)
        target[request] = row
        head[request] = row[:n] + noise * normal(n, vocabulary)
    steps = [sample_draft(head[:, j], sampling, j) for j in range(n)]
    tokens = torch.stack([ids for ids, _ in steps], 1).flatten()
    stats = torch.stack([numbers for _, numbers in steps], 1).flatten(0, 1)
    draft = Draft(tokens, [n] * shape.batch, head.flatten(0, 1), stats)
    return Case(shape, target.flatten(0, 1), draft, sampling)
