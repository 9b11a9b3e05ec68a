"""Block verification: the arithmetic of one request (Sun et al., arXiv 2403.10444, algorithm 2).

Drafts x_1 .. x_n; target rows P_0 .. P_n, P_i the one after i drafts; draft rows Q_0 .. Q_{n-1}; w_0 = 1, and then

    w_i = min(1, w_{i-1} P_{i-1}(x_i) / Q_{i-1}(x_i))     P(at least i drafts accepted | x_1 .. x_i)
    S_i = Σ_v max(w_i P_i(v) - Q_i(v), 0)
    h_i = S_i / (S_i + 1 - w_i) for i < n;  h_n = w_n     P(i accepted | x_1 .. x_n, not more than i accepted)
    T_i = 1 - Π_{k >= i} (1 - h_k);  T_0 = 1              P(at least i accepted | x_1 .. x_n)

tau drafts are accepted, tau = the largest i with u < T_i. If tau < n, a token is recovered from
normalise(max(w_tau P_tau - Q_tau, 0)); if tau = n, a bonus token is drawn from P_n. The paper draws a number u_i for
every i and takes the largest i with u_i < h_i; the law is the same. One number is what keeps steps independent: those
behind tau would have been looked at, and belong to positions that the next step decides (see reference.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

# Where w_i = 1 and P_i = Q_i, h_i is 0 / 0. It does not matter then, as T_{i+1} = 1 for every x_{i+1} from Q_i, and is
# called 1. Denominators up to this size count as 0: float64 sums err by less, and the output's law moves by no more.
ROUNDING = 1e-9


class Block(NamedTuple):
    weight: list[float]  # w_0 .. w_n
    reach: list[float]  # T_0 .. T_n, not increasing

    def accepted(self, u: float) -> int:
        """tau for a uniform u in [0, 1)."""
        return max(i for i, reach in enumerate(self.reach) if u < reach)

    def acceptance_probability(self, tau: int) -> list[float]:
        """T_i / T_{i-1} for i = 1 .. min(tau + 1, n): that draft i is accepted, given that those before it are."""
        return [b / a for a, b in zip(self.reach[: tau + 1], self.reach[1:], strict=False)]


def block(p: Tensor, q: Tensor, token_ids: Sequence[int], q_tokens: Sequence[float]) -> Block:
    """p float64 [n + 1, V], q float64 [n, V], token_ids the n drafts, q_tokens [n] = Q_{i-1}(x_i); n at least 1."""
    n = len(token_ids)
    w = [1.0]
    for i, (x, qx) in enumerate(zip(token_ids, q_tokens, strict=True)):
        w.append(clipped_ratio(w[i] * float(p[i, x]), qx))
    reach = [w[n]]
    for i in range(n - 1, 0, -1):
        mass = float(residual(p[i], q[i], w[i]).sum())
        denominator = mass + (1 - w[i])
        h = mass / denominator if denominator > ROUNDING else 1.0
        reach.append(reach[-1] + h * (1 - reach[-1]))
    return Block(w, [1.0, *reversed(reach)])


def residual(p: Tensor, q: Tensor, w: float) -> Tensor:
    """max(w p - q, 0), not normalised."""
    return (w * p - q).clamp(min=0)


def clipped_ratio(p: float, q: float) -> float:
    """min(1, p / q); for q = 0, which no draft from q has, 1 or with p = 0 too 0."""
    return p / q if p < q else float(p > 0)
