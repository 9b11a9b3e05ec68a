"""Logits as weights and as ordered integers.

A distribution is v -> [l(v) >= lowest] 2^((l(v) - shift) rate) factor, with rate = log2(e) / T. Its exponential is
float32: the argument is a difference of two logits, rounded once, so a weight errs by about 1e-7 of itself. With normal
logits of standard deviation 0.3 to 5 and V = 151,936, at most 0.03 % of draws then give another token than in float64.
A second float32 for what rounding the argument loses would not help, as the GPU's own 2^x errs as much.

Keys: the bits of a float, with those below the sign flipped for negative numbers, order like the floats do. bf16 and
fp16 logits, widened, leave the lowest 16 and 13 bits of a key without information, and SHIFT drops them: fewer steps of
bisection.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
GREEDY_BELOW = tl.constexpr(1e-5)  # specdec.sampling.GREEDY_BELOW
INFINITY = tl.constexpr(float("inf"))
LOWEST_LOGIT = tl.constexpr(float("-inf"))
_LARGEST_FLOAT = tl.constexpr(3.4028234663852886e38)
_BELOW_SIGN = tl.constexpr(0x7FFFFFFF)


@triton.jit
def finite_logits(pointers, mask):
    """float32; NaN, +inf and what is masked off become -inf, as specdec.verify.checks.repaired says."""
    logit = tl.load(pointers, mask=mask, other=LOWEST_LOGIT).to(tl.float32)
    return tl.where(logit < INFINITY, logit, LOWEST_LOGIT)


@triton.jit
def rate_of(temperature):
    """log2(e) / T as float32; greedy rows use T = 1."""
    t = tl.where(temperature < GREEDY_BELOW, 1.0, temperature).to(tl.float64)
    return (1.0 / t * LOG2_E).to(tl.float32)


@triton.jit
def weight(logit, shift, rate, lowest):
    """float32, not negative; `factor` is left to the caller."""
    return tl.where(logit >= lowest, tl.exp2((logit - shift) * rate), 0.0)


@triton.jit
def clamped(x):
    """float64 x as a finite float32."""
    return tl.minimum(tl.maximum(x, -_LARGEST_FLOAT), _LARGEST_FLOAT).to(tl.float32)


@triton.jit
def float_from(x):
    """The lowest float32 that is not below the float64 x: logits, which are float32, are >= both or neither."""
    nearest = x.to(tl.float32)
    bits = nearest.to(tl.int32, bitcast=True)
    above = tl.where(nearest == 0.0, 1, tl.where(bits >= 0, bits + 1, bits - 1)).to(tl.float32, bitcast=True)
    return tl.where(nearest.to(tl.float64) < x, above, nearest)


@triton.jit
def _flipped(bits):
    return tl.where(bits < 0, bits ^ _BELOW_SIGN, bits)


@triton.jit
def key_of(logit, SHIFT: tl.constexpr):
    """int32. -0 counts as +0, which it is equal to."""
    return _flipped(tl.where(logit == 0.0, 0.0, logit).to(tl.int32, bitcast=True)) >> SHIFT


@triton.jit
def key_from(x, SHIFT: tl.constexpr):
    """The lowest key of a logit that is not below the float64 x."""
    key = _flipped(float_from(x).to(tl.int32, bitcast=True))
    # The bits that SHIFT drops are 0 in the keys of positive logits and 1 in those of negative ones.
    return tl.where(key >= 0, key + ((1 << SHIFT) - 1), key) >> SHIFT


@triton.jit
def logit_of(key, SHIFT: tl.constexpr):
    """float64: the inverse of key_of."""
    wide = key << SHIFT
    bits = _flipped(tl.where(key < 0, wide | ((1 << SHIFT) - 1), wide))
    return bits.to(tl.float32, bitcast=True).to(tl.float64)
