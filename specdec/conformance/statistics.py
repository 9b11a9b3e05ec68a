"""Goodness of fit. With fixed seeds a p-value is one fixed number, so a level of 1e-6 costs no power: planted faults
(tests/conformance/test_mutants.py, tests/verify/test_unbiased.py) land far below it."""

from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL = 1e-6


@dataclass(frozen=True)
class ChiSquare:
    statistic: float
    degrees: int  # of freedom
    p_value: float


def chi_square(counts: Tensor, probabilities: Tensor, smallest_expected: float = 5.0) -> ChiSquare:
    """Pearson's test of counts [K] against probabilities [K] (sum 1; any shape, flattened alike).

    Cells that expect fewer than `smallest_expected` are pooled into one. A count in a cell of probability 0 gives
    p = 0: such a token must never come out.
    """
    observed, p = counts.flatten().to(torch.float64), probabilities.flatten().to(torch.float64)
    if (observed[p == 0] > 0).any():
        return ChiSquare(float("inf"), 0, 0.0)
    expected = p * observed.sum()
    small = expected < smallest_expected
    observed = torch.cat([observed[~small], observed[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    used = expected > 0
    statistic = ((observed - expected)[used] ** 2 / expected[used]).sum()
    degrees = int(used.sum()) - 1
    if degrees < 1:
        return ChiSquare(0.0, 0, 1.0)
    p_value = torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), statistic / 2)
    return ChiSquare(float(statistic), degrees, float(p_value))


def two_sample(first: Tensor, second: Tensor, smallest_expected: float = 5.0) -> ChiSquare:
    """Test that two count vectors [K] come from one distribution, whatever it is; small cells are pooled."""
    a, b = first.flatten().to(torch.float64), second.flatten().to(torch.float64)
    share = (a + b) / (a + b).sum()
    small = share * torch.minimum(a.sum(), b.sum()) < smallest_expected
    table = torch.stack([torch.cat([c[~small], c[small].sum()[None]]) for c in (a, b)])
    table = table[:, table.sum(0) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    degrees = table.shape[1] - 1
    if degrees < 1:
        return ChiSquare(0.0, 0, 1.0)
    statistic = ((table - expected) ** 2 / expected).sum()
    p_value = torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), statistic / 2)
    return ChiSquare(float(statistic), degrees, float(p_value))
