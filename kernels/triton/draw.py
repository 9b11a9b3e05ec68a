"""The inverse of a cumulative distribution in the order of the ids, as specdec/sampling/draw.py defines it.

A draw takes two of these: one over the sums of the tiles, and one within the tile that it found.
"""

import triton
import triton.language as tl


@triton.jit
def first_above(weights, index, target):
    """Of weights float64 [n], not negative, at index int32 [n], ascending: the first index at which their running sum
    exceeds target; failing that the last one with any weight; -1 where there is none. And the sum before it."""
    has_weight = weights > 0
    last = tl.max(tl.where(has_weight, index, -1))
    past = has_weight & (tl.cumsum(weights, 0) > target)
    chosen = tl.min(tl.where(past, index, last))
    return chosen, tl.sum(tl.where(index < chosen, weights, 0.0))
