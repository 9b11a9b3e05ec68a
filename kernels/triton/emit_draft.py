"""Launch 4 of sample_draft, a program per request: the drawn token, and four numbers that state its distribution."""

import triton
import triton.language as tl

from specdec.kernels.triton.draw import first_above
from specdec.kernels.triton.logits import finite_logits
from specdec.kernels.triton.philox import uniform
from specdec.kernels.triton.residual import target_probability
from specdec.kernels.triton.rows import BAD, FACTOR, MAX, NUM_FACTS, POINT, THRESHOLD


@triton.jit(do_not_specialize=["purpose"])
def emit_draft(
    logits,  # [B, vocab], `stride` elements apart
    temperature,  # float32 [B]
    seed,  # int64 [B]
    position,  # int64 [B]
    facts,  # float64 [B, NUM_FACTS]
    scratch,  # float64 [B, scratch_stride]: anything [tiles], then tile_kept [tiles]
    tokens,  # out, int32 [B]
    stats,  # out, float64 [B, 4]: columns of Draft.row_stats
    bad,  # out, int32 [B]: 1 where the row is no distribution
    purpose,  # of the random number
    scratch_stride,
    stride,
    vocab,
    tiles,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
):
    request = tl.program_id(0)
    slot = request.to(tl.int64)
    fact = facts + slot * NUM_FACTS
    row = logits + slot * stride
    tile = tl.arange(0, TILES)
    kept = tl.load(scratch + slot * scratch_stride + tiles + tile, mask=tile < tiles, other=0.0)
    aim = uniform(tl.load(seed + request), tl.load(position + request), request * 0 + purpose) * tl.sum(kept)
    chosen_tile, before = first_above(kept, tile, aim)
    ids = tl.maximum(chosen_tile, 0) * TILE + tl.arange(0, TILE)
    drawn, _ = first_above(target_probability(row, fact, ids, ids < vocab), ids, aim - before)
    point = tl.load(fact + POINT).to(tl.int32)
    is_point = point >= 0
    token = tl.where(is_point, point, tl.maximum(drawn, 0))
    largest = tl.load(fact + MAX)
    logit = tl.where(is_point, largest, finite_logits(row + token, is_point == 0).to(tl.float64))
    t = tl.where(is_point, 0.0, tl.load(temperature + request)).to(tl.float64)
    lse = largest / tl.where(is_point, 1.0, t) - tl.log(tl.load(fact + FACTOR))
    out = stats + slot * 4
    tl.store(tokens + request, token)
    tl.store(out, t)
    tl.store(out + 1, tl.load(fact + THRESHOLD))
    tl.store(out + 2, tl.where(is_point, 0.0, lse))
    tl.store(out + 3, logit)
    tl.store(bad + request, tl.load(fact + BAD).to(tl.int32))
