"""The decisions of a step, from the facts of its target rows: one p(x) and one q(x) per draft.

Token rule (Leviathan et al., arXiv 2211.17192, algorithm 1): accept x where u q(x) < p(x), up to the first rejection.
Block rule (Sun et al., arXiv 2403.10444, algorithm 2): names and formulas of specdec/verify/block.py. A request with
fewer than two drafts, or with one that is no sample of a row, is verified by the token rule.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.drafts import ROW
from specdec.kernels.triton.rows import KIND, NUM_FACTS, PASSES, P, Q


@triton.jit
def clipped_ratio(p, q):
    """min(1, p / q); for q = 0, which no draft from q has, 1 or with p = 0 too 0."""
    return tl.where(p < q, p / tl.where(q > 0, q, 1.0), tl.where(p > 0, 1.0, 0.0))


@triton.jit
def accepted_by_token_rule(fact, num_drafts, DRAFTS: tl.constexpr):
    """int32: how many drafts are accepted. fact: pointer to the facts of the request's first target row."""
    j = tl.arange(0, DRAFTS)
    passes = tl.load(fact + j * NUM_FACTS + PASSES, mask=j < num_drafts, other=0.0)
    return tl.min(tl.where(passes > 0, num_drafts, tl.minimum(j, num_drafts)))


@triton.jit
def follows_block_rule(fact, num_drafts, DRAFTS: tl.constexpr):
    j = tl.arange(0, DRAFTS)
    kind = tl.load(fact + j * NUM_FACTS + KIND, mask=j < num_drafts, other=ROW)
    return (num_drafts >= 2) & (tl.min(kind) == ROW)


@triton.jit
def block_weight(fact, i):
    """float64: w_i."""
    w = tl.load(fact + P) * 0 + 1.0
    for j in range(0, i):
        w = clipped_ratio(w * tl.load(fact + j * NUM_FACTS + P), tl.load(fact + j * NUM_FACTS + Q))
    return w
