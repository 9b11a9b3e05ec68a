"""Launch 4, a program per request: what is accepted, and the one token that is drawn.

Block rule, with the masses S_i = Σ tile_left of launch 3 and w_i (see specdec/verify/block.py):

    h_i = S_i / (S_i + 1 - w_i)        T_n = w_n        T_i = T_{i+1} + h_i (1 - T_{i+1})        T_0 = 1

and tau = the largest i with u < T_i. The token is drawn from what is left of p at the position where the request
stops, or from p where nothing is.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.draw import first_above
from specdec.kernels.triton.philox import ACCEPT, BONUS, RECOVER, uniform
from specdec.kernels.triton.residual import subtracted, target_probability
from specdec.kernels.triton.rows import BAD, NUM_FACTS, TOKEN, WEIGHT, P, Q
from specdec.kernels.triton.rules import accepted_by_token_rule, clipped_ratio, follows_block_rule
from specdec.verify import block

_ROUNDING = tl.constexpr(block.ROUNDING)


@triton.jit
def _row_sum(sums, tiles, TILES: tl.constexpr):
    tile = tl.arange(0, TILES)
    return tl.sum(tl.load(sums + tile, mask=tile < tiles, other=0.0))


@triton.jit
def _accepted_by_block_rule(fact, num_drafts, u, tile_left, scratch_stride, probability, tiles, TILES: tl.constexpr):
    """tau; `probability` of the drafts that were reached becomes T_i / T_{i-1}. All pointers: the request's first."""
    reach = tl.load(fact + num_drafts * NUM_FACTS + WEIGHT)
    tau = tl.where(u < reach, num_drafts, -1)
    for back in range(0, num_drafts):
        i = num_drafts - 1 - back
        w = tl.load(fact + i * NUM_FACTS + WEIGHT)
        mass = tl.where(w > 0, _row_sum(tile_left + i.to(tl.int64) * scratch_stride, tiles, TILES), 0.0)
        denominator = mass + (1 - w)
        h = tl.where(denominator > _ROUNDING, mass / tl.where(denominator > _ROUNDING, denominator, 1.0), 1.0)
        here = tl.where(i == 0, 1.0, reach + h * (1 - reach))
        tau = tl.where((tau < 0) & (u < here), i, tau)
        tl.store(probability + i, (reach / tl.where(here > 0, here, 1.0)).to(tl.float32), mask=tau >= i)
        reach = here
    return tau


@triton.jit(do_not_specialize=["width"])
def emit(
    target,  # [num_rows, vocab], target_stride elements apart
    draft_logits,  # [R, vocab], draft_stride elements apart; None: all drafts are one-hot
    first_row,  # int32 [B + 1]
    seed,  # int64 [B]
    position,  # int64 [B]
    facts,  # float64 [slots, NUM_FACTS]
    scratch,  # float64 [slots, scratch_stride]: tile_left [tiles], then tile_kept [tiles]
    tile_overlap,  # float64 [num_rows, tiles], or None
    tokens,  # out, int32 [B, width], filled with -1
    num_accepted,  # out, int32 [B]
    bad_row,  # out, int32 [B]: the first one, or -1
    probability,  # out, float32 [N], filled with NaN
    alpha,  # out, float32 [N]; None with tile_overlap
    width,
    scratch_stride,
    target_stride,
    draft_stride,
    vocab,
    tiles,
    BLOCK: tl.constexpr,
    DRAFTS: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
):
    request = tl.program_id(0)
    first = tl.load(first_row + request)
    num_drafts = tl.load(first_row + request + 1) - first - 1
    first_draft = first - request
    fact = facts + first.to(tl.int64) * NUM_FACTS
    key = tl.load(seed + request)
    start = tl.load(position + request)
    j = tl.arange(0, DRAFTS)

    stop = accepted_by_token_rule(fact, num_drafts, DRAFTS)
    p_drafts = tl.load(fact + j * NUM_FACTS + P, mask=j < num_drafts, other=0.0)
    q_drafts = tl.load(fact + j * NUM_FACTS + Q, mask=j < num_drafts, other=0.0)
    ratio = clipped_ratio(p_drafts, q_drafts).to(tl.float32)
    w = tl.load(fact + P) * 0 + 1.0
    by_token_rule = first >= 0
    if BLOCK:
        if follows_block_rule(fact, num_drafts, DRAFTS):
            by_token_rule = first < 0
            stop = _accepted_by_block_rule(
                fact, num_drafts, uniform(key, start, first * 0 + ACCEPT),
                scratch + first.to(tl.int64) * scratch_stride, scratch_stride, probability + first_draft, tiles, TILES,
            )  # fmt: skip
            w = tl.where(stop == num_drafts, 1.0, tl.load(fact + stop * NUM_FACTS + WEIGHT))
    tl.store(num_accepted + request, stop)
    out = tokens + request.to(tl.int64) * width
    drafts = tl.load(fact + j * NUM_FACTS + TOKEN, mask=j < stop, other=-1.0)
    tl.store(out + j, drafts.to(tl.int32), mask=j < stop)
    reached = tl.where(by_token_rule, tl.minimum(stop + 1, num_drafts), 0)
    tl.store(probability + first_draft + j, ratio, mask=j < reached)
    row = tl.arange(0, DRAFTS * 2)
    bad = tl.load(fact + row * NUM_FACTS + BAD, mask=row <= num_drafts, other=0.0)
    first_bad = tl.min(tl.where(bad > 0, row, DRAFTS * 2))
    tl.store(bad_row + request, tl.where(first_bad <= num_drafts, first + first_bad, -1))
    if alpha is not None:
        for i in range(0, num_drafts):
            overlap = _row_sum(tile_overlap + (first + i).to(tl.int64) * tiles, tiles, TILES)
            tl.store(alpha + first_draft + i, overlap.to(tl.float32))

    slot = first.to(tl.int64) + stop
    fact = facts + slot * NUM_FACTS
    tile = tl.arange(0, TILES)
    sums = scratch + slot * scratch_stride + tile
    left = tl.load(sums, mask=tile < tiles, other=0.0)
    kept = tl.load(sums + tiles, mask=tile < tiles, other=0.0)
    from_left = tl.sum(left) > 0
    masses = tl.where(from_left, left, kept)
    aim = uniform(key, start + stop, tl.where(stop == num_drafts, BONUS, RECOVER)) * tl.sum(masses)
    chosen_tile, before = first_above(masses, tile, aim)
    # Tile sums cannot all be 0, as the largest logit weighs 1; the maximum keeps the address sound in any case.
    ids = tl.maximum(chosen_tile, 0) * TILE + tl.arange(0, TILE)
    p = target_probability(target + slot * target_stride, fact, ids, ids < vocab)
    q = subtracted(draft_logits, draft_stride, fact, ids, ids < vocab)
    rest = tl.where(from_left, tl.maximum(w * p - q, 0.0), p)
    drawn, _ = first_above(rest, ids, aim - before)
    # Compiled apart from launch 3, a residual of rounding errors may come out as 0 here: then a token that p keeps.
    kept_token, _ = first_above(p, ids, 0.0)
    tl.store(out + stop, tl.where(drawn < 0, tl.maximum(kept_token, 0), drawn))
