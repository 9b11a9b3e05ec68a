"""Rows of logits that are no distribution must harm nobody but the request they belong to.

The kernels refuse a matrix with such a row (NaN, +inf, or nothing but -inf) before they have drawn anything; here the
row is replaced and the call made again. Rows are good in all but broken cases, so nothing is spent on looking for them.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from vllm.logger import init_logger

from specdec.errors import BadLogitsError

logger = init_logger(__name__)

T = TypeVar("T")
Replacement = Callable[[torch.Tensor], torch.Tensor]


def uniform_row(row: torch.Tensor) -> torch.Tensor:
    """For a draft row [V]: any q that really samples the draft is exact, and this one always can."""
    return torch.zeros_like(row)


def finite_part(row: torch.Tensor) -> torch.Tensor:
    """For a target row [V]: its finite entries alone; token 0 where it has none (what vLLM's own argmax gives)."""
    kept = torch.where(row.isfinite(), row, -torch.inf)
    if not kept.isfinite().any():
        kept[0] = 0.0
    return kept


def repaired(
    logits: torch.Tensor, call: Callable[[torch.Tensor], T], replace: Replacement, name: Callable[[int], str] = str
) -> tuple[torch.Tensor, T]:
    """(logits as used, call(logits)), with each row that the call refuses replaced in a copy and reported by `name`."""
    for _ in range(logits.shape[0] + 1):
        try:
            return logits, call(logits)
        except BadLogitsError as error:
            logger.error("specdec: %s Only request %s is affected.", error, name(error.request))
            logits = logits.clone()
            logits[error.row] = replace(logits[error.row])
    raise AssertionError("a replaced row was refused again")
