"""Acceptance against the target's entropy: means of bins, and a line with a confidence interval.

Bebop (arXiv 2606.12370) finds acceptance to fall about linearly with entropy, and less so for heads trained by TV. Here
the line is ordinary least squares over anchors. Anchors of one document are not independent, so the interval comes from
a bootstrap that draws whole documents (2,000 times, percentiles 2.5 and 97.5). Two heads are compared on the same
draws, which leaves out what the documents do to both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from specdec.evaluation.measure import Figures

Verify = Literal["rejection", "target_only"]
Of = Literal["length", "acceptance"]
EntropyOf = Literal["temperature_1", "setting"]
DRAWS, SEED, BINS = 2000, 0, 10


class Curve(NamedTuple):
    """Which acceptance against which entropy.

    verify: rejection sampling, or greedy drafts. of: the expected length of a chain (tokens per step) against the mean
    entropy of its positions, or the acceptance of one position against its entropy. entropy: of the target at
    temperature 1, unfiltered, or of what the setting makes of it; nats.
    """

    verify: Verify
    of: Of
    entropy: EntropyOf


CURVES = [Curve(v, o, e) for e in get_args(EntropyOf) for o in get_args(Of) for v in get_args(Verify)]


@dataclass(frozen=True)
class Fit:
    """A line, and its slope's 95 % interval: None where all entropies are equal, or there is but one document."""

    slope: float | None
    intercept: float | None
    low: float | None
    high: float | None
    documents: int
    bins: list[dict[str, float]]

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Fit":
        """From a report's plain values, where the curve's stand beside them."""
        return cls(**{field.name: plain[field.name] for field in fields(cls)})

    def at(self, entropy: np.ndarray) -> np.ndarray:
        """The line there."""
        assert self.slope is not None and self.intercept is not None, "there is no line"
        return self.intercept + self.slope * entropy


def fit(figures: Figures, curve: Curve) -> Fit:
    """The line and ten bins of equal counts, each with the means of entropy and value."""
    x, y, documents = _points(figures, curve)
    sums = _sums(x, y, documents)
    (slope, intercept), drawn = _lines(sums.sum(0)), _lines(_draws(sums))[0]
    low, high = _interval(drawn) if len(sums) > 1 else (None, None)
    return Fit(_number(slope), _number(intercept), low, high, len(sums), list(_bins(x, y)))


def slope_difference(figures: Figures, other: Figures, curve: Curve) -> dict[str, Any]:
    """figures' slope minus other's, with its 95 % interval; both are of the same anchors."""
    sums = [_sums(*_points(f, curve)) for f in (figures, other)]
    mine, theirs = (_lines(s.sum(0))[0] for s in sums)
    drawn = [_lines(_draws(s))[0] for s in sums]  # the same documents for both: the seed is fixed
    low, high = _interval(drawn[0] - drawn[1]) if len(sums[0]) > 1 else (None, None)
    return curve._asdict() | {"difference": _number(mine - theirs), "low": low, "high": high}


def _points(figures: Figures, curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y (float64) and document of each point."""
    alpha = figures.alpha if curve.verify == "rejection" else figures.greedy
    entropy = figures.entropy_at_1 if curve.entropy == "temperature_1" else figures.entropy
    if curve.of == "length":
        return _array(entropy.mean(-1)), _array(1 + alpha.double().cumprod(-1).sum(-1)), figures.documents.numpy()
    documents = figures.documents[:, None].expand_as(alpha)
    return _array(entropy).ravel(), _array(alpha).ravel(), documents.numpy().ravel()


def _array(values: Tensor) -> np.ndarray:
    return values.double().numpy()


def _sums(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """n, sum x, sum y, sum xx, sum xy of each document [D, 5]: all that a line needs."""
    _, which = np.unique(documents, return_inverse=True)
    return np.stack([np.bincount(which, weights) for weights in (np.ones_like(x), x, y, x * x, x * y)], axis=-1)


def _draws(sums: np.ndarray) -> np.ndarray:
    """[D, 5] -> [DRAWS, 5]: of as many documents, drawn with replacement."""
    count = len(sums)
    times = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return times.astype(np.float64) @ sums


def _lines(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept [...] from sums [..., 5]; NaN where x does not vary."""
    n, x, y, xx, xy = np.moveaxis(sums, -1, 0)
    spread = n * xx - x * x
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, np.nan)
        return slope, (y - slope * x) / n


def _interval(drawn: np.ndarray) -> tuple[float | None, float | None]:
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return _number(low), _number(high)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _bins(x: np.ndarray, y: np.ndarray) -> Iterator[dict[str, float]]:
    for part in np.array_split(np.argsort(x, kind="stable"), BINS):
        if len(part):
            yield {"entropy": float(x[part].mean()), "value": float(y[part].mean()), "count": len(part)}
