"""Losses straight from hidden states and LM-head weights, without the [tokens, V] logits of the whole batch.

    z = h_q W_q^T / T     t = h_p W_p^T / T     q = softmax(z)     p = softmax(t)
    alpha = sum_j min(p_j, q_j)         dalpha/dz_j = q_j ([q_j <= p_j] - S),  S = sum_v [q_v <= p_v] q_v
    KL = sum_j p_j (log p_j - log q_j)  dKL/dz_j = q_j - p_j

Every loss here is a function of a row's alpha and KL, so its gradient in z is a multiple of these two, row by row. That
is why one sweep over the tokens suffices: a block of rows has its logits made, alpha and KL taken, the slopes above
written over the logits and multiplied by W_q, which leaves [tokens, d] to be scaled in the backward pass. Three matrix
products, as eager has, and two buffers of [block, V]. Where W_q learns too, its gradient [V, d] cannot be scaled by row
later: the backward pass sweeps once more.

Bebop (arXiv 2606.12370) fuses TV likewise, tiling the vocabulary; Liger's losses (arXiv 2410.10989) block the tokens.
"""

from specdec.training.fused.losses import (
    BACKENDS,
    FUSED,
    divergences,
    linear_e2e_tv,
    linear_kl,
    linear_tv,
    step_losses,
)

__all__ = ["BACKENDS", "FUSED", "divergences", "linear_e2e_tv", "linear_kl", "linear_tv", "step_losses"]
