"""What requests ask of sampling, drawn for each chain: a head is to draft for all of them.

Each chain is given a temperature from the stated range (its logarithm uniform, as halving matters alike at 1 and at
0.5) and, in a share of them, filters. Its loss is of the p and q that serving would make of the same logits: both over
the chain's temperature and filtered, each to its own kept tokens; and it counts times the temperature, as slopes in the
logits come divided by it. What a filter drops has no gradient; that it may drop others after the update is ignored,
since the loss as a function of the logits is smooth everywhere else.
"""

from dataclasses import dataclass
from math import inf, log

import torch

from specdec.errors import SpecdecError
from specdec.evaluation.filters import Filters
from specdec.sampling import SamplingBatch
from specdec.training.draws import Draws

UNDER_FILTERS = ("e2e-tv", "tv")


@dataclass(frozen=True)
class ServingMix:
    """temperatures: lowest and highest. top_k 0, top_p 1 and min_p 0 are off. filtered: share of chains under those."""

    temperatures: tuple[float, float]
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    filtered: float = 0.0

    @property
    def filters(self) -> bool:
        return (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0)

    def check(self, loss: str) -> None:
        """SpecdecError: a value that no engine would take, or a loss that filters make infinite."""
        low, high = self.temperatures
        if not 0 < low <= high < inf:
            raise SpecdecError(
                f"--temperatures {low:g} {high:g} is no range: give a number above 0 and one not below it"
            )
        Filters(low, self.top_k, self.top_p, self.min_p).check()
        if not 0 <= self.filtered <= 1:
            raise SpecdecError(f"--filtered {self.filtered:g} is no share of the chains: give a number from 0 to 1")
        if self.filters and loss not in UNDER_FILTERS:
            raise SpecdecError(
                f"--loss {loss} is infinite where a filter drops of the draft what it keeps of the target: use "
                f"{' or '.join(UNDER_FILTERS)}, or no --top-k, --top-p and --min-p"
            )

    def draw(self, draws: Draws, steps: int, device: torch.device) -> SamplingBatch:
        """For each of `steps` steps of each of n chains, chain-major: [n steps]. A chain's are alike."""
        place, under = draws.uniform("serving", 2).to(device).repeat_interleave(steps, dim=0).unbind(-1)
        low, high = (log(t) for t in self.temperatures)
        some = under < self.filtered
        return SamplingBatch(
            temperature=(low + place * (high - low)).exp(),
            top_k=torch.where(some, self.top_k, 0),
            top_p=torch.where(some, self.top_p, 1.0),
            min_p=torch.where(some, self.min_p, 0.0),
            seed=torch.zeros_like(place, dtype=torch.int64),
            position=torch.zeros_like(place, dtype=torch.int64),
        )
