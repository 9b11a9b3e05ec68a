"""Losses between a draft distribution q = softmax(z) and the target's p = softmax(t), per position, in nats or [0, 1].

Every function takes logits, never writes them, computes in float32 at least, sends no gradient to the target and
returns one value per position. A logit of -inf is a probability of exactly zero; a row must hold at least one finite
logit. alpha = sum(min(p, q)) is the probability that rejection sampling accepts the draft (arXiv 2211.17192).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# What the logarithm of a probability of exactly zero counts as, in nats: of p in reverse KL, of alpha in -log alpha.
LOG_FLOOR = -100.0
LK_ETA = 3.0  # of the hybrid, as in its paper


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
    return lost_by_step(acceptance(draft_logits, target_logits)).mean(-1)


def lost_by_step(alphas: Tensor) -> Tensor:
    """1 - prod_{i<=j} alpha_i: the probability that draft j is not accepted. alphas [..., K] -> [..., K].

    Its mean over the K steps is `e2e_tv`.
    """
    reached: list[Tensor] = []
    for alpha in alphas.unbind(-1):  # products step by step: the gradient needs no division by alpha
        reached.append(reached[-1] * alpha if reached else alpha)
    return 1.0 - torch.stack(reached, dim=-1)


def neg_log_alpha(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """-log alpha = -log sum(min(p, q)). [..., V], [..., V] -> [...].

    Gradient dL/dz_j = -(w_j [q_j <= p_j] - q_j W) with w = min(p, q) / alpha and W = sum_v [q_v <= p_v] w_v: that of TV
    over alpha, so it does not fade where little is accepted, and still at most 1 in absolute value, as W <= 1. Computed
    from logarithms: exact however small alpha is. Where alpha is exactly 0 (no token in common, with -inf logits), the
    loss is -LOG_FLOOR and the gradient 0: no finite change of the draft's logits would change alpha. At alpha = 1 both
    are 0. LK losses (arXiv 2602.23881).
    """
    log_q, log_p = _log_softmax(draft_logits), _log_softmax(target_logits.detach())
    log_min = torch.where(log_q <= log_p, log_q, log_p)
    nothing = (log_min == float("-inf")).all(-1, keepdim=True)
    log_alpha = log_min.masked_fill(nothing, 0.0).logsumexp(-1)
    return -log_alpha.masked_fill(nothing.squeeze(-1), LOG_FLOOR)


def lk_hybrid(draft_logits: Tensor, target_logits: Tensor, eta: float = LK_ETA) -> Tensor:
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


# (draft logits [..., K, V], target logits [..., K, V], labels [..., K]) -> [..., K]: what each step of a chain loses.
StepLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
STEP_LOSSES: dict[str, StepLoss] = {
    "ce": lambda draft, target, labels: cross_entropy(draft, labels),
    "kl": lambda draft, target, labels: kl(draft, target),
    "reverse-kl": lambda draft, target, labels: reverse_kl(draft, target),
    "tv": lambda draft, target, labels: tv(draft, target),
    "e2e-tv": lambda draft, target, labels: lost_by_step(acceptance(draft, target)),
    "neg-log-alpha": lambda draft, target, labels: neg_log_alpha(draft, target),
    "lk-hybrid": lambda draft, target, labels: lk_hybrid(draft, target),
}


def demonstration_weights(target_logits: Tensor, tokens: Tensor) -> Tensor:
    """1 - p_base(y) of the text's own tokens y, without gradient. [..., V] logits, [...] ids -> [...] in [0, 1].

    For noisy demonstrations: p_base is the frozen target's probability, and a token's loss counts by what the target
    does not already give it. It multiplies the loss of that token, and so its gradient; the weights are not normalised:
    a batch of tokens that the target is sure of teaches little. Target distribution design (arXiv 2606.11189).
    """
    return 1.0 - _softmax(target_logits.detach()).gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)


def chain_mean(per_step: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over a chain's K steps, each step's loss times its weight. [..., K], [..., K] or None -> [...]."""
    return (per_step if weights is None else weights * per_step).mean(-1)


# (draft logits [..., K, V], target logits [..., K, V], labels [..., K]) -> [...], one value per anchor.
ChainLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _over_chain(step_loss: StepLoss) -> ChainLoss:
    return lambda draft, target, labels: chain_mean(step_loss(draft, target, labels))


LOSSES: dict[str, ChainLoss] = {name: _over_chain(step_loss) for name, step_loss in STEP_LOSSES.items()}
