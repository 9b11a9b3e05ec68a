"""The change of one row of the residual stream per program: specdec/steering/change.py on a GPU.

A row without a program costs one load. Launched on all rows, padding included, with tensors that stay where they are,
so that it may be part of a CUDA graph. Column numbers are those of change.py.
"""

import triton
import triton.language as tl


@triton.jit
def _activation(u, numbers, thresholds, mean, deviation, root_mean_square, HAS_TOPK: tl.constexpr):
    """f of a reading, from u = x·e, and the size of a change in units of the stream."""
    kind = tl.load(numbers + 6)
    u -= tl.where(kind == 1.0, mean * tl.load(numbers + 5), 0.0)
    size = tl.where(kind == 1.0, deviation, tl.where(kind == 2.0, root_mean_square, 1.0))
    pre = u / (size + tl.where(kind == 1.0, 1e-5, 0.0)) + tl.load(numbers)
    threshold = tl.load(numbers + 1)
    if HAS_TOPK:
        topk = tl.load(numbers + 7).to(tl.int32)
        own = tl.load(thresholds + tl.maximum(topk, 0))
        threshold = tl.where(topk >= 0, own, threshold)
    f = tl.maximum(tl.load(numbers + 2) * pre + tl.load(numbers + 3), tl.load(numbers + 4))
    return tl.where(pre > threshold, f, 0.0), size


@triton.jit
def change_kernel(
    hidden,  # [n, WIDTH], changed in place
    residual,  # [n, WIDTH]; None: hidden is the whole stream
    slots,  # int32 [n or more]: the row's program, 0 for none
    counts,  # int32 [programs]: edits in use
    encoders,  # float32 [programs, 2, MAX_EDITS, WIDTH]: an edit's own reading, its gate's
    readings,  # float32 [programs, 2, MAX_EDITS, READ]
    decoders,  # float32 [programs, MAX_EDITS, WIDTH]
    writings,  # float32 [programs, MAX_EDITS, WRITE]
    thresholds,  # float32 [n, NUM_TOPK]; None: no TopK SAE is in use
    WIDTH: tl.constexpr,
    MAX_EDITS: tl.constexpr,
    READ: tl.constexpr,
    WRITE: tl.constexpr,
    NUM_TOPK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot > 0:
        column = tl.arange(0, BLOCK)
        inside = column < WIDTH
        own = tl.load(hidden + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
        x = own
        if residual is not None:
            x += tl.load(residual + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(x) / WIDTH
        apart = tl.where(inside, x - mean, 0.0)
        deviation = tl.sqrt(tl.sum(apart * apart) / (WIDTH - 1))
        square = tl.sum(x * x)
        norm, root_mean_square = tl.sqrt(square), tl.sqrt(square / WIDTH)
        own_thresholds = thresholds
        if NUM_TOPK > 0:
            own_thresholds += row * NUM_TOPK
        delta = tl.zeros([BLOCK], tl.float32)
        for edit in range(tl.load(counts + slot)):
            main, second = slot * 2 * MAX_EDITS + edit, (slot * 2 + 1) * MAX_EDITS + edit
            u = tl.sum(x * tl.load(encoders + main * WIDTH + column, mask=inside, other=0.0))
            f, size = _activation(
                u, readings + main * READ, own_thresholds, mean, deviation, root_mean_square, NUM_TOPK > 0
            )
            u = tl.sum(x * tl.load(encoders + second * WIDTH + column, mask=inside, other=0.0))
            gate, _ = _activation(
                u, readings + second * READ, own_thresholds, mean, deviation, root_mean_square, NUM_TOPK > 0
            )
            place = slot * MAX_EDITS + edit
            numbers = writings + place * WRITE
            amount = tl.minimum(tl.load(numbers) * f + tl.load(numbers + 1), tl.load(numbers + 2)) - f
            amount *= tl.where(tl.load(numbers + 4) > 0, norm, size)
            acts = (gate > tl.load(numbers + 5)) & ((f > 0) | (tl.load(numbers + 3) == 0))
            direction = tl.load(decoders + place * WIDTH + column, mask=inside, other=0.0)
            delta += tl.where(acts, amount, 0.0) * direction
        tl.store(hidden + row * WIDTH + column, (own + delta).to(hidden.dtype.element_ty), mask=inside)
