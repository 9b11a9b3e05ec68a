"""Acceptance figures of one request, as its answer holds them.

    {"tokens": 64, "steps": 25, "drafted": [25, 25, 24], "accepted": [19, 14, 6], "reached": [25, 19, 14],
     "acceptance_length": 2.56, "expected_acceptance": [0.71, 0.73, 0.5], "entropy": 1.31}

Lists are by position in the draft. "steps" are verify steps with drafts; "accepted" / "reached" is the observed
acceptance, "expected_acceptance" the mean of min(1, p/q) over the reached drafts, which estimates the same with less
noise. "entropy" is the mean, over the tokens, of the entropy in nats of the distribution that the token is a sample of:
temperature and filters applied, so 0 where they leave one token. Drafts that a stop cut off count as verified.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class RequestFigures:
    """Of a response so far; see the module's text. Arrays are by position [n]: int64, expected_sum float64."""

    tokens: int
    steps: int
    drafted: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray
    expected_sum: np.ndarray
    entropy: float

    @property
    def acceptance_length(self) -> float:
        """Tokens per verify step with drafts; nan without any."""
        return 1 + float(self.accepted.sum()) / self.steps if self.steps else float("nan")

    @property
    def expected_acceptance(self) -> np.ndarray:
        """By position; nan where no draft was reached."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.expected_sum / self.reached

    def as_json(self) -> dict[str, Any]:
        """What stands under "figures" of a choice's "specdec" in a response; null for what is no number."""
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "drafted": self.drafted.tolist(),
            "reached": self.reached.tolist(),
            "accepted": self.accepted.tolist(),
            "acceptance_length": _number(self.acceptance_length),
            "expected_acceptance": [_number(value) for value in self.expected_acceptance],
            "entropy": _number(self.entropy),
        }


class FiguresCollector:
    """Adds up what arrives step by step."""

    def __init__(self) -> None:
        self._steps = 0
        self._sums: dict[str, list[float]] = {name: [] for name in ("drafted", "reached", "accepted", "expected")}
        self._entropy_sums = [0.0]  # of the first 0, 1, 2 ... tokens

    def take(self, drafts: int, accepted: int, expected: list[float], entropy: list[float]) -> None:
        """One step: its drafts, how many were accepted, the probability of acceptance of each that was reached, and the
        target's entropy for each token that came of it."""
        for value in entropy:
            self._entropy_sums.append(self._entropy_sums[-1] + value)
        if not drafts:
            return
        self._steps += 1
        reached = min(accepted + 1, drafts)
        self._add("drafted", [1.0] * drafts)
        self._add("reached", [1.0] * reached)
        self._add("accepted", [1.0] * accepted)
        self._add("expected", expected[:reached])

    def give(self, tokens: int) -> RequestFigures:
        """Of a response of `tokens` tokens so far; the entropies of tokens behind them are left out."""
        count = len(self._sums["drafted"])
        drafted, reached, accepted = (
            np.asarray(self._padded(name, count), dtype=np.int64) for name in ("drafted", "reached", "accepted")
        )
        known = min(tokens, len(self._entropy_sums) - 1)
        mean = self._entropy_sums[known] / known if known else float("nan")
        return RequestFigures(
            tokens, self._steps, drafted, reached, accepted, np.asarray(self._padded("expected", count)), mean
        )

    def _add(self, name: str, values: list[float]) -> None:
        sums = self._sums[name] = self._padded(name, len(values))
        for place, value in enumerate(values):
            sums[place] += value

    def _padded(self, name: str, count: int) -> list[float]:
        sums = self._sums[name]
        return sums + [0.0] * (count - len(sums))


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
