"""Steps small enough to be worked on paper, once per seed: the uniforms are the documented streams, so that each
request's outcome is known exactly, not only its distribution."""

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch, philox_uniform
from specdec.verify import Draft, VerifyOutput, verify

SEEDS = list(range(100))
POSITION = 11  # at which every request's step begins


def log(*rows: list[float]) -> Tensor:
    """Logits of rows of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log().to(torch.float32)


def u(offset: int, purpose: int) -> list[float]:
    """Each request's number for the token at `offset` from its position."""
    seeds = torch.tensor(SEEDS)
    return philox_uniform(seeds, torch.full_like(seeds, POSITION + offset), purpose).tolist()


def sampling(**parameters: float) -> SamplingBatch:
    """A request per seed."""
    batch = SamplingBatch.uniform(len(SEEDS), position=POSITION, **parameters)
    batch.seed = torch.tensor(SEEDS)
    return batch


def once_per_seed(
    backend: str, target: Tensor, tokens: list[int], q: Tensor | None, method: str = "token", **parameters: float
) -> VerifyOutput:
    """One step for every seed. target [n + 1, V]; the n drafts `tokens` with rows q [n, V]; None: one-hot."""
    many = len(SEEDS)
    rows = None if q is None else q.repeat(many, 1)
    draft = Draft(torch.tensor(tokens * many, dtype=torch.int32), [len(tokens)] * many, rows)
    return verify(target.repeat(many, 1), draft, sampling(**parameters), method, backend, expected_acceptance=True)
