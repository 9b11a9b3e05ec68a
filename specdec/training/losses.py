"""Losses between a draft distribution q = softmax(z) and the target's p = softmax(t), per position, in nats or [0, 1].

Every function takes logits, never writes them, computes in float32 at least, sends no gradient to the target and
returns one value per position. A logit of -inf is a probability of exactly zero; a row must hold at least one finite
logit. alpha = sum(min(p, q)) is the probability that rejection sampling accepts the draft (arXiv 2211.17192).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Reverse KL is infinite where the target's probability is zero; there log p counts as this many nats.
LOG_FLOOR = -100.0


def cross_entropy(draft_logits: Tensor, target: Tensor) -> Tensor:
    """-log q(y). draft_logits [..., V]; target: token ids y [...] (integers), or target logits [..., V] -> [...].

    With logits the label is soft: -sum(p log q), whose gradient is that of `kl`. dL/dz = q - onehot(y), or q - p.
    What existing trainers of heads use (speculators, SpecForge), with the text's own tokens as labels.
    """
    log_q = _log_softmax(draft_logits)
    if not target.is_floating_point():
        return -log_q.gather(-1, target.long().unsqueeze(-1)).squeeze(-1)
    p = _softmax(target.detach())
    return -(p * log_q.masked_fill(p == 0, 0.0)).sum(-1)


def kl(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL(p || q) = sum(p (log p - log q)). [..., V], [..., V] -> [...].

    Gradient dL/dz = q - p (finite also where q = 0 < p, where the loss is infinite). Distillation as in DistillSpec
    (arXiv 2310.08461, forward KL).
    """
    log_q, log_p = _log_softmax(draft_logits), _log_softmax(target_logits.detach())
    p = log_p.exp()
    impossible = p == 0  # 0 log 0 = 0
    return (p * (log_p.masked_fill(impossible, 0.0) - log_q.masked_fill(impossible, 0.0))).sum(-1)


def reverse_kl(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL(q || p) = sum(q (log q - log p)), log p no lower than LOG_FLOOR. [..., V], [..., V] -> [...].

    Gradient dL/dz_j = q_j (log(q_j / p_j) - L). Compared in Bebop (arXiv 2606.12370); MiniLLM (arXiv 2306.08543).
    """
    log_q = _log_softmax(draft_logits)
    log_p = _log_softmax(target_logits.detach()).clamp(min=LOG_FLOOR)
    q = log_q.exp()
    return (q * (log_q.masked_fill(q == 0, 0.0) - log_p)).sum(-1)


def acceptance(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """alpha = sum(min(p, q)), differentiable in the draft. [..., V], [..., V] -> [...]."""
    q, p = _softmax(draft_logits), _softmax(target_logits.detach())
    # where, not minimum: a tie counts as q <= p in full, as in the closed form, rather than by half.
    return torch.where(q <= p, q, p).sum(-1)


def tv(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Total variation 1 - alpha = 1 - sum(min(p, q)). [..., V], [..., V] -> [...].

    Gradient dL/dz_j = -q_j ([q_j <= p_j] - S) with S = sum_v [q_v <= p_v] q_v; at most 1 in absolute value. It is what
    rejection sampling loses, so its minimum is the highest acceptance. Bebop (arXiv 2606.12370).
    """
    return 1.0 - acceptance(draft_logits, target_logits)


def e2e_tv(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """1 - (1/K) sum_j prod_{i<=j} alpha_i over the K steps of a chain. [..., K, V], [..., K, V] -> [...].

    K (1 - L) is the expected number of accepted drafts. dL/dalpha_i = -(1/K) pre_i S_i with pre_i = prod_{k<i} alpha_k
    and S_i = 1 + alpha_{i+1} S_{i+1}; no step weights to choose. Exact at alpha = 0 and 1. Bebop (arXiv 2606.12370).
    """
    alphas = acceptance(draft_logits, target_logits).unbind(-1)
    reached, total = torch.ones_like(alphas[0]), torch.zeros_like(alphas[0])
    for alpha in alphas:  # products step by step: the gradient needs no division by alpha
        reached = reached * alpha
        total = total + reached
    return 1.0 - total / len(alphas)


def lk_hybrid(draft_logits: Tensor, target_logits: Tensor, eta: float = 3.0) -> Tensor:
    """lambda KL(p || q) + (1 - lambda) TV with lambda = exp(-eta stopgrad(alpha)). [..., V], [..., V] -> [...].

    KL's steady pull where little is accepted, TV's aim where much is. LK losses (arXiv 2602.23881), eta 3 as there.
    Gradient: lambda (q - p) + (1 - lambda) dTV/dz.
    """
    alpha = acceptance(draft_logits, target_logits)
    weight = torch.exp(-eta * alpha.detach())
    return weight * kl(draft_logits, target_logits) + (1.0 - weight) * (1.0 - alpha)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _softmax(logits: Tensor) -> Tensor:
    return F.softmax(_wide(logits), dim=-1)


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(_wide(logits), dim=-1)


# What the trainer calls: (draft logits [..., K, V], target logits [..., K, V], labels [..., K]) -> [...], one value per
# anchor; the losses of one position are averaged over the chain's K steps.
ChainLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, ChainLoss] = {
    "ce": lambda draft, target, labels: cross_entropy(draft, labels).mean(-1),
    "kl": lambda draft, target, labels: kl(draft, target).mean(-1),
    "reverse-kl": lambda draft, target, labels: reverse_kl(draft, target).mean(-1),
    "tv": lambda draft, target, labels: tv(draft, target).mean(-1),
    "e2e-tv": lambda draft, target, labels: e2e_tv(draft, target),
    "lk-hybrid": lambda draft, target, labels: lk_hybrid(draft, target).mean(-1),
}
