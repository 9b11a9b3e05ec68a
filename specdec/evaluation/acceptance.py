"""Held-out acceptance of a head: what its drafts would yield at every position of real text.

The acceptance length, in tokens per target step, is taken along the text: 1 + sum_k E[prod_{i<=k} alpha_i]. Serving
differs: its text is the target's own, the accepted drafts are no sample of it, and its steps start behind one another.
served.py accounts for that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from specdec.drafting import NEUTRAL, Calibration
from specdec.evaluation.filters import PLAIN, Filters
from specdec.evaluation.measure import Figures, measure
from specdec.heads.module import MTPHead
from specdec.training.data import Windows
from specdec.training.target import Target

__all__ = ["Acceptance", "Filters", "measure_acceptance"]


@dataclass(frozen=True)
class Acceptance:
    """alpha: mean acceptance at each step; length: tokens per target step, 1 to K + 1.

    greedy_*: the same under target-only verification. anchors: number of chains measured.
    alpha is averaged over all anchors, whether or not serving would have reached the step there.
    """

    alpha: list[float]
    length: float
    greedy_alpha: list[float]
    greedy_length: float
    anchors: int
    filters: Filters

    @classmethod
    def of(cls, figures: Figures, filters: Filters) -> "Acceptance":
        """Means over the chains; zeros where there is none."""
        alpha, greedy = (_mean(values) for values in (figures.alpha, figures.greedy))
        lengths = (1 + sum(_mean(v.double().cumprod(-1))) for v in (figures.alpha, figures.greedy))
        return cls(alpha, next(lengths), greedy, next(lengths), len(figures), filters)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        steps = " ".join(f"{a:.3f}" for a in self.alpha)
        return f"acceptance per step {steps}, length {self.length:.3f} (target-only {self.greedy_length:.3f})"


def _mean(values: Tensor) -> list[float]:
    """[n, K] -> K."""
    means: list[float] = (values.double().sum(0) / max(1, len(values))).tolist()
    return means


def measure_acceptance(
    head: MTPHead,
    target: Target,
    windows: Sequence[Windows],
    steps: int,
    filters: Filters = PLAIN,
    autocast: bool = True,
    calibration: Calibration = NEUTRAL,
) -> Acceptance:
    """Acceptance of `steps` drafted tokens over the anchors of the windows; see the module's text for the formulas."""
    figures = measure([head], target, windows, steps, [filters], autocast, calibrations=[calibration])
    return Acceptance.of(figures[0][0], filters)
