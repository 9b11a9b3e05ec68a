"""Launch 2, a program per row: from the statistics of its tiles to the facts of rows.py.

For a kept token, p(v) = exp((l(v) - max) / T) / mass. Greedy rows are a point mass on their first largest logit. A bad
target row is taken as specdec.verify.checks.repaired leaves it: its finite logits alone, or token 0 where there are
none. The facts of a target row with a draft say what q is, and whether the token rule lets the draft pass.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.drafts import NOTHING, draft_token
from specdec.kernels.triton.logits import GREEDY_BELOW, LOWEST_LOGIT, finite_logits, float_from, rate_of
from specdec.kernels.triton.philox import ACCEPT, uniform
from specdec.kernels.triton.rows import (
    BAD,
    DRAFT_ROW,
    FACTOR,
    KIND,
    LOWEST,
    MAX,
    NUM_FACTS,
    PASSES,
    POINT,
    Q_FACTOR,
    Q_LOWEST,
    Q_RATE,
    Q_SHIFT,
    RATE,
    THRESHOLD,
    TOKEN,
    P,
    Q,
    locate,
)
from specdec.kernels.triton.threshold import filtered


@triton.jit
def _first_largest(row, maxima, largest, vocab, TILE: tl.constexpr, TILES: tl.constexpr):
    """int32: the first token whose logit is `largest`."""
    tile = tl.min(tl.where(maxima == largest, tl.arange(0, TILES), TILES))
    token = tile * TILE + tl.arange(0, TILE)
    logit = finite_logits(row + token, token < vocab)
    return tl.min(tl.where((logit == largest) & (token < vocab), token, vocab))


@triton.jit
def _probability(row, token, vocab, largest, temperature, threshold, mass, point):
    """float64, of one token; 0 where the id is no token."""
    exists = (token >= 0) & (token < vocab)
    logit = finite_logits(row + token, exists).to(tl.float64)
    t = tl.where(temperature < GREEDY_BELOW, 1.0, temperature).to(tl.float64)
    kept = exists & (logit >= threshold) & (logit > LOWEST_LOGIT)
    p = tl.exp((tl.where(kept, logit, largest) - largest.to(tl.float64)) / t) / mass
    return tl.where(point >= 0, tl.where(token == point, 1.0, 0.0).to(tl.float64), tl.where(kept, p, 0.0))


@triton.jit(
    do_not_specialize=["num_rows", "num_draft_rows"],
    do_not_specialize_on_alignment=["draft_rows", "draft_stats", "token_ids", "request_of_row"],
)
def row_statistics(
    logits,  # [rows, vocab], `stride` elements apart
    draft_rows,  # int64 [N], or None: draft i has row i; outside [0, R): there is no row
    draft_stats,  # float64 [R, 4]; None: without HAS_ROWS there are none, else the facts of the drafts' slots are known
    token_ids,  # int32 or int64 [N]
    first_row,  # int32 [B + 1]
    request_of_row,  # int32 [num_rows]
    temperature,  # float32 [B]
    top_k,  # int32 [B]
    top_p,  # float32 [B]
    min_p,  # float32 [B]
    seed,  # int64 [B]
    position,  # int64 [B]
    tile_max,  # float32 [slots, tiles]
    tile_sum,  # float64 [slots, tiles]
    group_bad,  # int32 [slots, groups]
    facts,  # float64 [slots, NUM_FACTS]
    scratch,  # float64 [slots, scratch_stride]: first CAPACITY float32, then `tiles` int16
    scratch_stride,
    stride,
    num_rows,
    num_draft_rows,  # R
    vocab,
    tiles,
    groups,
    IS_DRAFT: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    BAD_IS_POINT: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    TILES: tl.constexpr,
    GROUPS: tl.constexpr,
    CAPACITY: tl.constexpr,
    SHIFT: tl.constexpr,
):
    r = tl.program_id(0)
    request, draft, at, slot, used, drafted = locate(
        r, first_row, request_of_row, draft_rows, num_rows, num_draft_rows, IS_DRAFT
    )
    if used:
        row = logits + at * stride
        tile = tl.arange(0, TILES)
        maxima = tl.load(tile_max + slot * tiles + tile, mask=tile < tiles, other=LOWEST_LOGIT)
        sums = tl.load(tile_sum + slot * tiles + tile, mask=tile < tiles, other=0.0)
        group = tl.arange(0, GROUPS)
        bad = tl.max(tl.load(group_bad + slot * groups + group, mask=group < groups, other=0))
        largest = tl.max(maxima)
        empty = largest == LOWEST_LOGIT
        bad = tl.where(empty, 1, bad)
        largest = tl.where(empty, 0.0, largest)
        t = tl.load(temperature + request)
        is_point = t < GREEDY_BELOW
        if BAD_IS_POINT:
            is_point = is_point | (bad > 0)
        threshold = largest.to(tl.float64)
        mass = threshold * 0 + 1.0
        point = bad * 0 - 1
        if empty:
            point = point * 0
        elif is_point:
            point = _first_largest(row, maxima, largest, vocab, TILE, TILES)
        else:
            kept = (scratch + slot * scratch_stride).to(tl.pointer_type(tl.float32))
            tile_list = (kept + CAPACITY).to(tl.pointer_type(tl.int16))
            every = tl.sum(sums * tl.exp2((maxima - largest) * rate_of(t)).to(tl.float64))
            threshold, mass = filtered(
                row, maxima, largest, every, t, tl.load(top_k + request), tl.load(top_p + request),
                tl.load(min_p + request), tile_list, kept, vocab, tiles, TILE, GROUP, TILES, CAPACITY, SHIFT,
            )  # fmt: skip
        token = tl.load(token_ids + draft, mask=drafted, other=-1).to(tl.int64)
        p = _probability(row, token, vocab, largest, t, threshold, mass, point)
        fact = facts + slot * NUM_FACTS
        tl.store(fact + MAX, largest.to(tl.float64))
        tl.store(fact + RATE, rate_of(t).to(tl.float64))
        tl.store(fact + LOWEST, float_from(threshold).to(tl.float64))
        tl.store(fact + FACTOR, 1.0 / mass)
        tl.store(fact + POINT, point.to(tl.float64))
        tl.store(fact + THRESHOLD, threshold)
        tl.store(fact + BAD, bad.to(tl.float64))
        if IS_DRAFT:
            tl.store(fact + P, p)
        else:
            kind, q, draft_row, q_shift, q_rate, q_lowest, q_factor = draft_token(
                draft, token, t, draft_rows, draft_stats, facts, num_rows, num_draft_rows, vocab, HAS_ROWS
            )
            p = tl.where(kind == NOTHING, 0.0, p)
            j = r - tl.load(first_row + request)
            u = uniform(tl.load(seed + request), tl.load(position + request) + j, j * 0 + ACCEPT)
            tl.store(fact + P, p)
            tl.store(fact + TOKEN, token.to(tl.float64))
            tl.store(fact + KIND, kind.to(tl.float64))
            tl.store(fact + Q, q)
            tl.store(fact + DRAFT_ROW, draft_row.to(tl.float64))
            tl.store(fact + Q_SHIFT, q_shift.to(tl.float64))
            tl.store(fact + Q_RATE, q_rate.to(tl.float64))
            tl.store(fact + Q_LOWEST, q_lowest.to(tl.float64))
            tl.store(fact + Q_FACTOR, q_factor)
            tl.store(fact + PASSES, tl.where(u * q < p, 1.0, 0.0).to(tl.float64))
