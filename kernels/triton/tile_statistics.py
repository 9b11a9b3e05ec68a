"""Launch 1, a program per row and group of tiles. Over the finite logits of a tile:

    tile_max = max l        tile_sum = Σ exp((l - tile_max) / T)

and per group whether it holds a NaN or +inf. A row's maximum, and the mass of all its tokens, follow from these; so
does a bound for any rank, as the k-th largest logit is not below the k-th largest tile_max.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.logits import INFINITY, LOWEST_LOGIT, rate_of
from specdec.kernels.triton.rows import locate


@triton.jit(
    do_not_specialize=["num_rows", "num_draft_rows"],
    do_not_specialize_on_alignment=["draft_rows", "request_of_row"],
)
def tile_statistics(
    logits,  # [rows, vocab], `stride` elements apart
    draft_rows,  # int64 [N], or None: draft i has row i; outside [0, R): there is no row
    first_row,  # int32 [B + 1]
    request_of_row,  # int32 [num_rows]
    temperature,  # float32 [B]
    tile_max,  # float32 [slots, tiles]
    tile_sum,  # float64 [slots, tiles]
    group_bad,  # int32 [slots, groups]
    stride,
    num_rows,
    num_draft_rows,  # R
    vocab,
    tiles,
    groups,
    IS_DRAFT: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    program = tl.program_id(0)
    r = program // groups
    group = program % groups
    request, _, row, slot, used, _ = locate(
        r, first_row, request_of_row, draft_rows, num_rows, num_draft_rows, IS_DRAFT
    )
    if used:
        rate = rate_of(tl.load(temperature + request))
        tile = group * GROUP + tl.arange(0, GROUP)
        token = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
        raw = tl.load(logits + row * stride + token, mask=token < vocab, other=LOWEST_LOGIT).to(tl.float32)
        logit = tl.where(raw < INFINITY, raw, LOWEST_LOGIT)
        largest = tl.max(logit, 1)
        shift = tl.where(largest > LOWEST_LOGIT, largest, 0.0)
        sums = tl.sum(tl.exp2((logit - shift[:, None]) * rate).to(tl.float64), 1)
        bad = tl.max(tl.max(tl.where(raw < INFINITY, 0, 1), 1), 0)
        tl.store(tile_max + slot * tiles + tile, largest, mask=tile < tiles)
        tl.store(tile_sum + slot * tiles + tile, sums, mask=tile < tiles)
        tl.store(group_bad + slot * groups + group, bad)
