"""The acceptance length of a real engine, from the counters of its verify step (specdec/metrics)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from specdec.errors import SpecdecError
from specdec.evaluation.served import ratio_with_error
from specdec.metrics.cells import Counts


@dataclass(frozen=True)
class Measured:
    """length: tokens per step; error: half the width of its 95 % interval, from parts of the load.

    observed: share of the drafts that was accepted, of those reached, by position; expected: what p and q say it is.
    """

    length: float
    error: float
    observed: list[float]
    expected: list[float]
    steps: float

    @classmethod
    def of(cls, parts: Sequence[Counts], num_drafts: int) -> "Measured":
        """parts: what was counted while each part of the load ran. SpecdecError: nothing was."""
        steps, reached, accepted, expected = (
            np.array([part[name][:num_drafts] for part in parts], dtype=np.float64)
            for name in ("steps", "reached", "accepted", "expected_sum")
        )
        if not steps.sum():
            raise SpecdecError("the engine verified no drafts: raise --output-tokens, or give other prompts")
        tokens = torch.from_numpy(steps[:, 0] + accepted.sum(1))
        length, error = ratio_with_error(tokens, torch.from_numpy(steps[:, 0]))
        with np.errstate(invalid="ignore"):
            observed, theory = ((v.sum(0) / reached.sum(0)).tolist() for v in (accepted, expected))
        return cls(length, error, observed, theory, float(steps.sum()))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
