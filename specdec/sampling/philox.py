"""Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

A number depends on (seed, position, purpose) alone, never on what else is in the batch or how often it was asked for.
The purposes keep drafting, acceptance and recovery independent: shared noise biases the output. Draft j of a step has
the purpose DRAFT + 4 j (specdec.verify.reference.draft_purpose).
"""

import torch
from torch import Tensor

DRAFT, ACCEPT, RECOVER, BONUS = range(4)

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Ten rounds. counter [..., 4], key [..., 2], both int64 holding 32-bit words; returns [..., 4] likewise."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # int64 products wrap modulo 2^64, which leaves all 64 bits right; the shift's sign extension is masked off.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (b >> 32 & _MASK) ^ c1 ^ k0, b & _MASK, (a >> 32 & _MASK) ^ c3 ^ k1, a & _MASK
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return torch.stack([c0, c1, c2, c3], -1)


def philox_uniform(seed: Tensor, position: Tensor, purpose: int) -> Tensor:
    """Uniforms in [0, 1) with 53 bits.

    seed, position: int64, of one shape; purpose: a 32-bit number, see above. Returns float64 of that shape.
    Key = (seed low, seed high), counter = (position low, position high, purpose, 0).
    """
    seed, position = seed.to(torch.int64), position.to(torch.int64)
    key = torch.stack([seed & _MASK, seed >> 32 & _MASK], -1)
    counter = torch.stack(
        [position & _MASK, position >> 32 & _MASK, torch.full_like(position, purpose), torch.zeros_like(position)], -1
    )
    x = philox4x32(counter, key)
    return ((x[..., 0] >> 5) * 2**26 + (x[..., 1] >> 6)).to(torch.float64) / 2**53
