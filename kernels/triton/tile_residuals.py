"""Launch 3, a program per target row and group of tiles. Per tile, in float64:

    tile_left = Σ max(w p - q, 0)        tile_kept = Σ p        tile_overlap = Σ min(p, q)

for those rows from which emit may draw a token: under the token rule the one at which the request stops (with w = 1),
under the block rule all that are still reached, with their w_i, which is noted among the facts. tile_overlap is
computed for every draft, where the expected acceptance is asked for. A draft row is read only here, and in emit one
tile of one.

Tiles of which the threshold keeps nothing are not read, nor, where nothing is filtered and no draft row takes part,
any others: their sums are known since launch 1.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.drafts import POINT_MASS, ROW
from specdec.kernels.triton.logits import LOWEST_LOGIT
from specdec.kernels.triton.residual import subtracted, target_probability
from specdec.kernels.triton.rows import FACTOR, KIND, LOWEST, MAX, NUM_FACTS, POINT, RATE, TOKEN, WEIGHT
from specdec.kernels.triton.rules import accepted_by_token_rule, block_weight, follows_block_rule


@triton.jit(do_not_specialize_on_alignment=["request_of_row"])
def tile_residuals(
    target,  # [num_rows, vocab], target_stride elements apart
    draft_logits,  # [R, vocab], draft_stride elements apart; None: all drafts are one-hot
    first_row,  # int32 [B + 1]
    request_of_row,  # int32 [num_rows]
    tile_max,  # float32 [slots, tiles]
    tile_sum,  # float64 [slots, tiles]
    facts,  # float64 [slots, NUM_FACTS]
    scratch,  # float64 [slots, scratch_stride]: tile_left [tiles], then tile_kept [tiles]
    tile_overlap,  # float64 [num_rows, tiles], or None
    scratch_stride,
    target_stride,
    draft_stride,
    vocab,
    tiles,
    groups,
    BLOCK: tl.constexpr,
    DRAFTS: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    program = tl.program_id(0)
    r = program // groups
    group = program % groups
    request = tl.load(request_of_row + r)
    first = tl.load(first_row + request)
    num_drafts = tl.load(first_row + request + 1) - first - 1
    j = r - first
    slot = r.to(tl.int64)
    fact = facts + slot * NUM_FACTS
    first_fact = facts + first.to(tl.int64) * NUM_FACTS
    wanted = j == accepted_by_token_rule(first_fact, num_drafts, DRAFTS)
    w = tl.load(fact + MAX) * 0 + 1.0
    if BLOCK:
        if follows_block_rule(first_fact, num_drafts, DRAFTS):
            w = block_weight(first_fact, j)
            tl.store(fact + WEIGHT, w)
            wanted = w > 0
    if tile_overlap is not None:
        wanted = wanted | (j < num_drafts)
    if wanted:
        largest = tl.load(fact + MAX).to(tl.float32)
        lowest = tl.load(fact + LOWEST).to(tl.float32)
        kind = tl.load(fact + KIND)
        tile = group * GROUP + tl.arange(0, GROUP)
        maxima = tl.load(tile_max + slot * tiles + tile, mask=tile < tiles, other=LOWEST_LOGIT)
        sums = tl.load(tile_sum + slot * tiles + tile, mask=tile < tiles, other=0.0)
        scale = tl.exp2((maxima - largest) * tl.load(fact + RATE).to(tl.float32)).to(tl.float64)
        kept = sums * scale * tl.load(fact + FACTOR)
        left = kept
        overlap = kept * 0
        holds_token = (tl.load(fact + TOKEN).to(tl.int64) // (TILE * GROUP) == group) & (kind == POINT_MASS)
        if (lowest > LOWEST_LOGIT) | (kind == ROW) | holds_token:
            ids = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
            # The tile of a point mass may hold nothing above the threshold: a row without a finite logit. Masks are
            # the same for all of a tile, so that loads may be wide.
            point = tl.load(fact + POINT).to(tl.int32)
            has_kept = (maxima >= lowest) | (tile == tl.where(point < 0, -1, point // TILE))
            read = (ids < vocab) & has_kept[:, None]
            p = target_probability(target + slot * target_stride, fact, ids, read)
            q = subtracted(draft_logits, draft_stride, fact, ids, read)
            # After n accepted drafts w_n has done its work: the bonus token comes from p, and q is 0.
            w = tl.where(j == num_drafts, 1.0, w)
            kept = tl.sum(p, 1)
            left = tl.sum(tl.maximum(w * p - q, 0.0), 1)
            overlap = tl.sum(tl.minimum(p, q), 1)
        out = scratch + slot * scratch_stride + tile
        tl.store(out, left, mask=tile < tiles)
        tl.store(out + tiles, kept, mask=tile < tiles)
        if tile_overlap is not None:
            tl.store(tile_overlap + slot * tiles + tile, overlap, mask=tile < tiles)
