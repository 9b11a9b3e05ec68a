"""What is known of a draft token and its distribution q, as in draft_token of specdec/verify/reference.py.

NOTHING: the id is no token, or its row no distribution; q(x) = 0, and it is rejected. Also: there is no draft.
POINT_MASS: on x: no row was kept, the request is greedy, or the token was an argmax.
ROW: q(v) = [l(v) >= lowest] 2^((l(v) - shift) rate) factor over the draft's row of logits.
"""

import triton
import triton.language as tl

from specdec.kernels.triton.logits import GREEDY_BELOW, INFINITY, LOG2_E, clamped, float_from
from specdec.kernels.triton.rows import BAD, FACTOR, LOWEST, MAX, NUM_FACTS, RATE, P
from specdec.verify import types

NOTHING = tl.constexpr(0)
POINT_MASS = tl.constexpr(1)
ROW = tl.constexpr(2)

# Columns of Draft.row_stats.
_TEMPERATURE = tl.constexpr(types.TEMPERATURE)
_THRESHOLD = tl.constexpr(types.THRESHOLD)
_LOG_SUM_EXP = tl.constexpr(types.LOG_SUM_EXP)
_SAMPLED_LOGIT = tl.constexpr(types.SAMPLED_LOGIT)
_NUM_STATS = tl.constexpr(types.NUM_STATS)


@triton.jit
def _from_stats(stats, mask):
    """Whether the token was an argmax, whether the statistics say anything, q(x), shift, rate, lowest, factor."""
    t = tl.load(stats + _TEMPERATURE, mask=mask, other=1.0)
    lse = tl.load(stats + _LOG_SUM_EXP, mask=mask, other=0.0)
    logit = tl.load(stats + _SAMPLED_LOGIT, mask=mask, other=0.0)
    threshold = tl.load(stats + _THRESHOLD, mask=mask, other=0.0)
    was_argmax = t == 0
    sound = (tl.abs(t) < INFINITY) & (tl.abs(lse) < INFINITY) & (tl.abs(logit) < INFINITY)
    usable = mask & sound & (was_argmax == 0)
    t = tl.where(usable, t, 1.0)
    lse = tl.where(usable, lse, 0.0)
    q = tl.exp(tl.where(usable, logit, 0.0) / t - lse)
    # exp(l / T - lse) = exp((l - lse T) / T); what rounding lse T to float32 changes goes into the factor.
    shift = clamped(lse * t)
    factor = tl.exp(shift.to(tl.float64) / t - lse)
    return was_argmax, sound, q, shift, (1.0 / t * LOG2_E).to(tl.float32), float_from(threshold), factor


@triton.jit
def _from_facts(fact, mask):
    """As _from_stats, of a row whose facts are known."""
    sound = tl.load(fact + BAD, mask=mask, other=1.0) == 0
    q = tl.load(fact + P, mask=mask, other=0.0)
    shift = tl.load(fact + MAX, mask=mask, other=0.0).to(tl.float32)
    rate = tl.load(fact + RATE, mask=mask, other=0.0).to(tl.float32)
    lowest = tl.load(fact + LOWEST, mask=mask, other=0.0).to(tl.float32)
    return mask & (mask == 0), sound, q, shift, rate, lowest, tl.load(fact + FACTOR, mask=mask, other=0.0)


@triton.jit
def draft_token(
    draft, token, temperature, draft_rows, draft_stats, facts, num_rows, num_draft_rows, vocab, HAS_ROWS: tl.constexpr
):
    """kind (int32), q(token) (float64), row (int64), shift, rate, lowest (float32), factor (float64) of a draft.

    token int64, -1 where there is no draft; temperature of its request; facts: pointer to those of slot 0.
    """
    exists = (token >= 0) & (token < vocab)
    row = draft.to(tl.int64)
    if HAS_ROWS:
        if draft_rows is not None:
            row = tl.load(draft_rows + draft, mask=exists, other=-1)
        # The host does not look at the indices: one from nowhere says, as -1 does, that there is no row.
        has_row = (row >= 0) & (row < num_draft_rows)
        looked_up = exists & has_row & (temperature >= GREEDY_BELOW)
        if draft_stats is not None:
            was_argmax, sound, q, shift, rate, lowest, factor = _from_stats(draft_stats + row * _NUM_STATS, looked_up)
        else:
            slot = draft.to(tl.int64) + num_rows
            was_argmax, sound, q, shift, rate, lowest, factor = _from_facts(facts + slot * NUM_FACTS, looked_up)
        is_row = looked_up & (was_argmax == 0)
        kind = tl.where(is_row, tl.where(sound, ROW, NOTHING), tl.where(exists, POINT_MASS, NOTHING))
        q = tl.where(kind == ROW, q, tl.where(kind == POINT_MASS, 1.0, 0.0))
    else:
        kind = tl.where(exists, POINT_MASS, NOTHING)
        q = tl.where(exists, 1.0, 0.0).to(tl.float64)
        shift = tl.zeros_like(temperature)
        rate = shift
        lowest = shift
        factor = q * 0
    return kind, q, row, shift, rate, lowest, factor
