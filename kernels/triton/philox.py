"""Philox4x32-10 as in specdec/sampling/philox.py: key = (seed low, seed high), counter = (position low, position high,
purpose, 0); 53 of the first 64 bits are the uniform.

Words are kept in uint64, where the product of two of them fits.
"""

import triton
import triton.language as tl

from specdec.sampling import philox

ACCEPT = tl.constexpr(philox.ACCEPT)
RECOVER = tl.constexpr(philox.RECOVER)
BONUS = tl.constexpr(philox.BONUS)

_WORD = tl.constexpr(0xFFFFFFFF)
_MULTIPLY_0 = tl.constexpr(0xD2511F53)
_MULTIPLY_1 = tl.constexpr(0xCD9E8D57)
_WEYL_0 = tl.constexpr(0x9E3779B9)
_WEYL_1 = tl.constexpr(0xBB67AE85)
_HIGH_UNIT = tl.constexpr(2.0**-27)
_LOW_UNIT = tl.constexpr(2.0**-53)


@triton.jit
def uniform(seed, position, purpose):
    """float64 in [0, 1). seed, position: int64 scalars; purpose: int32 scalar."""
    key = seed.to(tl.uint64, bitcast=True)
    counter = position.to(tl.uint64, bitcast=True)
    k0 = key & _WORD
    k1 = key >> 32
    c0 = counter & _WORD
    c1 = counter >> 32
    c2 = tl.zeros_like(c0) + purpose.to(tl.uint64)
    c3 = tl.zeros_like(c0)
    for _ in tl.static_range(10):
        a = c0 * _MULTIPLY_0
        b = c2 * _MULTIPLY_1
        c0 = (b >> 32) ^ c1 ^ k0
        c1 = b & _WORD
        c2 = (a >> 32) ^ c3 ^ k1
        c3 = a & _WORD
        k0 = (k0 + _WEYL_0) & _WORD
        k1 = (k1 + _WEYL_1) & _WORD
    return (c0 >> 5).to(tl.float64) * _HIGH_UNIT + (c1 >> 6).to(tl.float64) * _LOW_UNIT
