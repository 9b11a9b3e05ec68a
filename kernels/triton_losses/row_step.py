"""alpha, KL and their slopes of one row of logits per program.

    q = softmax(z / T), p = softmax(t / T)
    alpha = sum_j min(p_j, q_j)         dalpha/dz_j = q_j ([q_j <= p_j] - S) / T,  S = sum_v [q_v <= p_v] q_v
    KL = sum_j p_j (log p_j - log q_j)  dKL/dz_j = (q_j - p_j) / T

Three passes over the row: (max, log-sum-exp) of both sides; alpha, S and KL; the slopes, which may be written over z.
Each pass makes q and p anew from the logits, as what is stored in the logits' type would be rounded. Bebop (arXiv
2606.12370) computes TV from the same statistics.
"""

import triton
import triton.language as tl


@triton.jit
def _scaled(row, column, vocab, temperature):
    """float32 logits over the temperature; -inf beyond the vocabulary."""
    return tl.load(row + column, mask=column < vocab, other=float("-inf")).to(tl.float32) / temperature


@triton.jit
def _log_sum_exp(row, vocab, temperature, TILE: tl.constexpr):
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, vocab, TILE):
        x = _scaled(row, start + tl.arange(0, TILE), vocab, temperature)
        new = tl.maximum(largest, tl.max(x))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(x - new))
        largest = new
    return largest + tl.log(total)


@triton.jit
def row_step_kernel(
    z,  # [R, vocab] draft logits
    t,  # [U, vocab] target logits
    target_rows,  # int64 [R]: row r is compared with row target_rows[r] of t; None: with row r
    temperatures,  # float32 [R]; None: 1
    alpha_slopes,  # [R, vocab], may be z; None: not wanted
    kl_slopes,  # [R, vocab], may be z where alpha_slopes is not; None: not wanted
    alpha_out,  # float32 [R]
    kl_out,  # float32 [R], written with WITH_KL
    vocab,
    WITH_KL: tl.constexpr,
    TILE: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    of_target = r
    if target_rows is not None:
        of_target = tl.load(target_rows + r)
    temperature = tl.full((), 1.0, tl.float32)
    if temperatures is not None:
        temperature = tl.load(temperatures + r)
    draft, target = z + r * vocab, t + of_target * vocab
    log_sum_q = _log_sum_exp(draft, vocab, temperature, TILE)
    log_sum_p = _log_sum_exp(target, vocab, temperature, TILE)
    alpha = tl.full((), 0.0, tl.float32)
    low_mass = tl.full((), 0.0, tl.float32)
    kl = tl.full((), 0.0, tl.float32)
    for start in range(0, vocab, TILE):
        column = start + tl.arange(0, TILE)
        log_q = _scaled(draft, column, vocab, temperature) - log_sum_q
        log_p = _scaled(target, column, vocab, temperature) - log_sum_p
        q, p = tl.exp(log_q), tl.exp(log_p)
        alpha += tl.sum(tl.minimum(q, p))
        if alpha_slopes is not None:
            low_mass += tl.sum(tl.where(q <= p, q, 0.0))
        if WITH_KL:
            kl += tl.sum(tl.where(column < vocab, p * (log_p - log_q), 0.0))
    tl.store(alpha_out + r, alpha)
    if WITH_KL:
        tl.store(kl_out + r, kl)
    if alpha_slopes is not None or kl_slopes is not None:
        for start in range(0, vocab, TILE):
            column = start + tl.arange(0, TILE)
            q = tl.exp(_scaled(draft, column, vocab, temperature) - log_sum_q)
            p = tl.exp(_scaled(target, column, vocab, temperature) - log_sum_p)
            at = r * vocab + column
            if alpha_slopes is not None:
                slope = q * (tl.where(q <= p, 1.0, 0.0) - low_mass) / temperature
                tl.store(alpha_slopes + at, slope.to(alpha_slopes.dtype.element_ty), mask=column < vocab)
            if kl_slopes is not None:
                slope = (q - p) / temperature
                tl.store(kl_slopes + at, slope.to(kl_slopes.dtype.element_ty), mask=column < vocab)
