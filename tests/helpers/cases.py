"""Random verify steps that mix what a serving batch mixes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft


@dataclass
class Case:
    target: Tensor  # [N + B, V]
    draft: Draft
    sampling: SamplingBatch


def random_sampling(g: torch.Generator, batch: int, vocab: int) -> SamplingBatch:
    """Greedy and sampled requests, each filter on for some of them, every seed bit and large positions in use."""

    def some(share: float, value: Tensor, off: float) -> Tensor:
        return torch.where(torch.rand(batch, generator=g) < share, value, torch.full_like(value, off))

    return SamplingBatch(
        temperature=some(0.85, torch.rand(batch, generator=g) * 1.5 + 0.3, 0),
        top_k=some(0.5, torch.randint(1, min(vocab, 60) + 1, (batch,), generator=g), 0),
        top_p=some(0.5, torch.rand(batch, generator=g) * 0.95 + 0.05, 1),
        min_p=some(0.3, torch.rand(batch, generator=g) * 0.3, 0),
        seed=torch.randint(-(2**63), 2**63 - 1, (batch,), generator=g),
        position=torch.randint(0, 2**40, (batch,), generator=g),
    )


def random_case(
    seed: int,
    vocab: int,
    batch: int,
    dtype: torch.dtype = torch.float32,
    kind: str = "stats",
    n_max: int = 4,
    counts: list[int] | None = None,
    sampling: SamplingBatch | None = None,
    scale: float = 3.0,
) -> Case:
    """kind: "stats" (row statistics kept), "logits" (q recomputed), "one-hot"."""
    g = torch.Generator().manual_seed(seed)
    if counts is None:
        counts = torch.randint(0, n_max + 1, (batch,), generator=g).tolist()
    sampling = sampling or random_sampling(g, batch, vocab)
    request = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts, dtype=torch.int64))
    n = len(request)
    target = (torch.randn(n + batch, vocab, generator=g) * scale).to(dtype)
    near = target[torch.arange(n) + request].float()
    logits = (near + torch.randn(n, vocab, generator=g) * 0.7).to(dtype)
    rows = sampling.rows(request)
    rows.position = rows.position + torch.tensor([j for c in counts for j in range(c)], dtype=torch.int64)
    tokens, stats = sample_draft(logits, rows, 0)
    if kind == "one-hot":
        return Case(target, Draft(tokens, counts), sampling)
    return Case(target, Draft(tokens, counts, logits, stats if kind == "stats" else None), sampling)
