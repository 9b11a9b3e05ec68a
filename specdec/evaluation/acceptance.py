"""Held-out acceptance of a head: what its drafts would yield at every position of real text.

Two ways to verify (Bebop, arXiv 2606.12370): rejection sampling accepts a draft drawn from q with probability
alpha = sum(min(p, q)); target-only accepts the greedy draft with p(argmax q). With chains that follow the text, the
acceptance length, in tokens per target step, is 1 + sum_k E[prod_{i<=k} alpha_i]. In serving the chain follows its own
drafts, so measured lengths differ from these.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from specdec.heads.module import MTPHead
from specdec.sampling import GREEDY_BELOW, SamplingBatch, filtered_logits
from specdec.training.chain import run_states
from specdec.training.data import Windows
from specdec.training.target import Target

LOGITS_AT_ONCE = 2**26  # of one side: 256 MiB in float32


@dataclass(frozen=True)
class Filters:
    """The sampling parameters of a request, applied to both sides. top_k 0, top_p 1 and min_p 0 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Distribution that serving samples from: logits [..., V] -> float32 [..., V]."""
        if self.temperature < GREEDY_BELOW:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        if (self.top_k, self.top_p, self.min_p) == (0, 1.0, 0.0):
            return (logits.float() / self.temperature).softmax(-1)
        flat = logits.reshape(-1, logits.shape[-1])
        rows = SamplingBatch.uniform(len(flat), self.temperature, self.top_k, self.top_p, self.min_p, seed=0)
        kept = filtered_logits(flat, rows.temperature, rows.top_k, rows.top_p, rows.min_p)
        return kept.softmax(-1).view(logits.shape)


@dataclass(frozen=True)
class Acceptance:
    """alpha: mean acceptance at each step; length: tokens per target step, 1 to K + 1.

    greedy_*: the same under target-only verification. anchors: number of chains measured.
    """

    alpha: list[float]
    length: float
    greedy_alpha: list[float]
    greedy_length: float
    anchors: int
    filters: Filters

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        steps = " ".join(f"{a:.3f}" for a in self.alpha)
        return f"acceptance per step {steps}, length {self.length:.3f} (target-only {self.greedy_length:.3f})"


@torch.no_grad()
def measure_acceptance(
    head: MTPHead,
    target: Target,
    windows: Sequence[Windows],
    steps: int,
    filters: Filters = Filters(),
    autocast: bool = True,
) -> Acceptance:
    """Acceptance of `steps` drafted tokens over the anchors of the windows; see the module's text for the formulas.

    alpha is averaged over all anchors, whether or not serving would have reached the step there.
    """
    sums = torch.zeros(4, steps, dtype=torch.float64)
    count = 0
    for batch in windows:
        states = run_states(head, target, batch, target.hidden(batch), steps, autocast)
        for part in states.split(max(1, LOGITS_AT_ONCE // (steps * target.weight.shape[0]))):
            chains = part.logits(target, autocast)
            p, q = filters.probabilities(chains.target_logits), filters.probabilities(chains.draft_logits)
            alpha = torch.minimum(p, q).sum(-1).double().clamp(max=1.0)
            greedy = p.gather(-1, q.argmax(-1, keepdim=True)).squeeze(-1).double()
            sums += torch.stack([v.sum(0) for v in (alpha, alpha.cumprod(-1), greedy, greedy.cumprod(-1))]).cpu()
            count += len(alpha)
    alpha_mean, prefix, greedy_mean, greedy_prefix = (sums / max(1, count)).tolist()
    return Acceptance(alpha_mean, 1 + sum(prefix), greedy_mean, 1 + sum(greedy_prefix), count, filters)
