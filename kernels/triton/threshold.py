"""Temperature, min-p, top-k and top-p as one threshold on the logit (specdec/sampling/filters.py), without sorting.

Top-k and top-p ask the same question: with a weight for every token (1, or exp((l - max) / T)) and a budget (k, or p
times the mass), which is the largest key c such that the tokens with key >= c weigh at least the budget? All tokens
tied at c are kept.

The answer is kept between two keys: tokens with key >= low weigh enough, those with key >= high, whose weight is
`above`, do not. One pass over the tiles that can hold a key >= pivot counts and weighs the tokens in [pivot, high), and
writes down their logits: CAPACITY of them fit. Where there are no more, bisection over the keys, in registers, ends the
search; else pivot halves the range, and the next pass follows. The first pivot is a good one: the k-th largest tile
maximum is not above the k-th largest logit, and hardly ever far below.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.logits import LOWEST_LOGIT, finite_logits, key_from, key_of, logit_of, rate_of

# For top-p alone the search begins at this rank among the tile maxima.
_NUCLEUS_RANK = tl.constexpr(96)


@triton.jit
def bisect(keys, weights, low, high, above, budget):
    """The key that the question above asks for, of keys int32 [n], weights float64 [n]; `low` where none weighs enough.
    Needs 0 weight for all that is not in [low, high)."""
    while low + 1 < high:
        middle = (low & high) + ((low ^ high) >> 1)  # half of the sum, which may not fit
        enough = above + tl.sum(tl.where(keys >= middle, weights, 0.0)) >= budget
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    return low


@triton.jit
def gather(
    row,
    tile_keys,
    low,
    high,
    largest,
    rate,
    tile_list,
    kept,
    vocab,
    tiles,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    TILES: tl.constexpr,
    CAPACITY: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """How many tokens have low <= key < high, and their mass; the logits of the first CAPACITY go to `kept`.

    The tiles that can hold such a token are listed first, as int16: vocabularies up to 2^24.
    """
    tile = tl.arange(0, TILES)
    chosen = (tile < tiles) & (tile_keys >= low)
    tl.store(tile_list + tl.cumsum(chosen.to(tl.int32), 0) - 1, tile.to(tl.int16), mask=chosen)
    tl.debug_barrier()  # the list is read by other threads than those that wrote it
    num_chosen = tl.sum(chosen.to(tl.int32))
    count = num_chosen * 0
    mass = count.to(tl.float64)
    lane = tl.arange(0, TILE * GROUP)
    for first in range(0, num_chosen, GROUP):
        at = first + lane // TILE
        listed = tl.load(tile_list + at, mask=at < num_chosen, other=0).to(tl.int32)
        token = listed * TILE + lane % TILE
        exists = (at < num_chosen) & (token < vocab)
        logit = finite_logits(row + token, exists)
        key = key_of(logit, SHIFT)
        inside = exists & (key >= low) & (key < high)
        place = count + tl.cumsum(inside.to(tl.int32), 0) - 1
        tl.store(kept + place, logit, mask=inside & (place < CAPACITY))
        count += tl.sum(inside.to(tl.int32))
        mass += tl.sum(tl.where(inside, tl.exp2((logit - largest) * rate), 0.0).to(tl.float64))
    tl.debug_barrier()  # as are the kept logits
    return count, mass


@triton.jit
def cut_kept(
    kept,
    count,
    low,
    high,
    above,
    budget,
    largest,
    rate,
    BY_MASS: tl.constexpr,
    CAPACITY: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The key among the `count` kept logits, all in [low, high), and the weight of all tokens with that key or more."""
    i = tl.arange(0, CAPACITY)
    logit = tl.load(kept + i, mask=i < count, other=LOWEST_LOGIT)
    keys = key_of(logit, SHIFT)
    weights = tl.where(i < count, 1.0, 0.0).to(tl.float64)
    if BY_MASS:
        weights = tl.where(i < count, tl.exp2((logit - largest) * rate), 0.0).to(tl.float64)
    key = bisect(keys, weights, low, high, above, budget)
    return key, above + tl.sum(tl.where(keys >= key, weights, 0.0))


@triton.jit
def cut(
    row,
    tile_keys,
    low,
    pivot,
    high,
    budget,
    largest,
    rate,
    tile_list,
    kept,
    vocab,
    tiles,
    BY_MASS: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    TILES: tl.constexpr,
    CAPACITY: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The key, the weight of all tokens with that key or more, and whether the tokens with key >= low weigh enough."""
    count = low * 0
    weight = budget * 0
    above = budget * 0
    searching = count == 0
    while searching:
        count, mass = gather(
            row, tile_keys, pivot, high, largest, rate, tile_list, kept, vocab, tiles,
            TILE, GROUP, TILES, CAPACITY, SHIFT,
        )  # fmt: skip
        weight = count.to(tl.float64)
        if BY_MASS:
            weight = mass
        # At the lowest key the search ends, enough or not: rounding must not keep it going.
        enough = (above + weight >= budget) | (pivot == low)
        searching = (enough == 0) | ((count > CAPACITY) & (pivot + 1 < high))
        above = tl.where(enough, above, above + weight)
        low = tl.where(enough, pivot, low)
        high = tl.where(enough, high, pivot)
        pivot = (low & high) + ((low ^ high) >> 1)
    found = above + weight >= budget
    key = low
    total = above + weight
    if count <= CAPACITY:
        key, total = cut_kept(
            kept, count, low, high, above, budget, largest, rate, BY_MASS, CAPACITY, SHIFT
        )  # fmt: skip
    return key, total, found


@triton.jit
def _key_at_rank(tile_keys, rank, low, high, tiles, TILES: tl.constexpr):
    """The rank-th largest key of a tile, or `low` if that is larger or there are fewer tiles."""
    exists = tl.arange(0, TILES) < tiles
    ones = tl.where(exists & (tile_keys >= low), 1.0, 0.0).to(tl.float64)
    return bisect(tile_keys, ones, low, high, tl.sum(ones) * 0, rank.to(tl.float64))


@triton.jit
def filtered(
    row,
    maxima,
    largest,
    mass,
    temperature,
    top_k,
    top_p,
    min_p,
    tile_list,
    kept,
    vocab,
    tiles,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    TILES: tl.constexpr,
    CAPACITY: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Threshold (float64) and kept mass (float64, of exp((l - largest) / T)) of one row that is not greedy.

    row: pointer to its logits; maxima float32 [TILES], its tiles' maxima; mass float64, of all its tokens; tile_list
    int16 [tiles] and kept float32 [CAPACITY]: scratch.
    """
    rate = rate_of(temperature)
    t = temperature.to(tl.float64)
    top = largest.to(tl.float64)
    tile_keys = key_of(maxima, SHIFT)
    threshold = top + t * tl.log(tl.where(min_p > 0, min_p, 1.0).to(tl.float64))
    threshold = tl.where(min_p > 0, threshold, LOWEST_LOGIT)
    low = key_from(threshold, SHIFT)
    high = key_of(largest, SHIFT) + 1
    count = low * 0 + (CAPACITY + 1)
    if (top_k > 0) & (top_k < vocab):
        pivot = _key_at_rank(tile_keys, top_k, low, high, tiles, TILES)
        key, _, found = cut(
            row, tile_keys, low, pivot, high, top_k.to(tl.float64), largest, rate, tile_list, kept, vocab, tiles,
            False, TILE, GROUP, TILES, CAPACITY, SHIFT,
        )  # fmt: skip
        # Not found: min-p leaves fewer than k.
        threshold = tl.where(found, tl.maximum(threshold, logit_of(key, SHIFT)), threshold)
        low = tl.where(found, key, low)
    if threshold > LOWEST_LOGIT:
        count, mass = gather(
            row, tile_keys, low, high, largest, rate, tile_list, kept, vocab, tiles, TILE, GROUP, TILES, CAPACITY, SHIFT
        )  # fmt: skip
    if top_p < 1:
        budget = top_p.to(tl.float64) * mass
        found = count <= CAPACITY
        if found:
            key, total = cut_kept(
                kept, count, low, high, mass * 0, budget, largest, rate, True, CAPACITY, SHIFT
            )  # fmt: skip
        else:
            # Tokens that weigh less than (1 - p) mass / V each weigh less than (1 - p) mass together: the threshold is
            # not below them. Half of that leaves room for rounding.
            light = (1 - top_p.to(tl.float64)) * mass / (2.0 * vocab)
            low = tl.maximum(low, key_from(top + t * tl.log(light), SHIFT))
            rank = tl.minimum(low * 0 + _NUCLEUS_RANK, tiles)
            pivot = _key_at_rank(tile_keys, rank, low, high, tiles, TILES)
            key, total, found = cut(
                row, tile_keys, low, pivot, high, budget, largest, rate, tile_list, kept, vocab, tiles,
                True, TILE, GROUP, TILES, CAPACITY, SHIFT,
            )  # fmt: skip
        # Not found: summed in another order the tokens may fall short of their own mass. Then all of them stay.
        threshold = tl.where(found, tl.maximum(threshold, logit_of(key, SHIFT)), threshold)
        mass = tl.where(found, total, mass)
    return threshold, mass
