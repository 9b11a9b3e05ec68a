"""p, q and what is left of p, over some tokens of one target row."""

import triton
import triton.language as tl

from specdec.kernels.triton.drafts import POINT_MASS, ROW
from specdec.kernels.triton.logits import LOWEST_LOGIT, finite_logits, weight
from specdec.kernels.triton.rows import (
    DRAFT_ROW,
    FACTOR,
    KIND,
    LOWEST,
    MAX,
    POINT,
    Q_FACTOR,
    Q_LOWEST,
    Q_RATE,
    Q_SHIFT,
    RATE,
    TOKEN,
)


@triton.jit
def target_probability(row, fact, token, mask):
    """float64 p(v) of the tokens, 0 where masked off. row: pointer to the logits; fact: to the row's facts."""
    point = tl.load(fact + POINT).to(tl.int32)
    # A block, as the interpreter cannot mask with the truth of a scalar.
    read = mask & (tl.zeros_like(token) + point < 0)
    logit = finite_logits(row + token, read)
    shift = tl.load(fact + MAX).to(tl.float32)
    lowest = tl.load(fact + LOWEST).to(tl.float32)
    p = weight(logit, shift, tl.load(fact + RATE).to(tl.float32), lowest).to(tl.float64) * tl.load(fact + FACTOR)
    return tl.where(mask, tl.where(point < 0, p, tl.where(token == point, 1.0, 0.0).to(tl.float64)), 0.0)


@triton.jit
def subtracted(draft_logits, stride, fact, token, mask):
    """float64: q of the tokens, 0 where masked off. draft_logits: pointer to row 0, or None; fact: to the target row's.

    A logit of NaN has q = 0, one of +inf has q = +inf. A point mass is 2 on its token, more than any p: so that
    min(p, q) = p and max(p - q, 0) = 0 hold to the last bit.
    """
    kind = tl.load(fact + KIND)
    at_point = (token == tl.load(fact + TOKEN).to(tl.int64)) & (tl.zeros_like(token) + kind == POINT_MASS)
    q = tl.where(at_point, 2.0, 0.0).to(tl.float64)
    if draft_logits is not None:
        if kind == ROW:
            row = draft_logits + tl.load(fact + DRAFT_ROW).to(tl.int64) * stride
            logit = tl.load(row + token, mask=mask, other=LOWEST_LOGIT).to(tl.float32)
            shift = tl.load(fact + Q_SHIFT).to(tl.float32)
            lowest = tl.load(fact + Q_LOWEST).to(tl.float32)
            q = weight(logit, shift, tl.load(fact + Q_RATE).to(tl.float32), lowest).to(tl.float64)
            q = tl.where(mask, q * tl.load(fact + Q_FACTOR), 0.0)
    return q
