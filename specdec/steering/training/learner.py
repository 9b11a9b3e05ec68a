"""The SAE while it is learnt, and its loss.

On inputs x scaled so that their mean square norm is d, BatchTopK (arXiv 2412.06410, section 3):
    pre = (x - b_dec) W_enc + b_enc       f = pre where it is among the B k largest of the batch and above 0, else 0
    x^ = f W_dec + b_dec                  loss = |x - x^|^2 / |x - mean|^2 + aux
Dead features learn what is left over (arXiv 2406.04093, A.2): with e = x - x^, and e^ made from the d / 2 largest of a
token's dead features, aux = weight |e - e^|^2 / |e|^2. Rows of W_dec have norm 1: gradients along them are dropped.

At inference no batch decides: a feature is active above a threshold, the running mean of the smallest active
pre-activation of a batch (section 3.1 there).
"""

import torch
from torch import Tensor

THRESHOLD_RATE = 0.01  # of the running mean: over the last hundred batches or so


class Learner:
    """All tensors float32; x below is [B, d], scaled.

    since_active [s]: tokens since each feature was last active. threshold []: < 0 until the first batch.
    """

    def __init__(self, width: int, features: int, k: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(features, width, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True)
        self.k = k
        self.W_enc = rows.T.contiguous().to(device).requires_grad_()
        self.W_dec = rows.to(device).requires_grad_()
        self.b_enc = torch.zeros(features, device=device, requires_grad=True)
        self.b_dec = torch.zeros(width, device=device, requires_grad=True)
        self.since_active = torch.zeros(features, dtype=torch.int64, device=device)
        self.threshold = torch.tensor(-1.0, device=device)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.W_enc, self.b_enc, self.W_dec, self.b_dec]

    def loss(self, x: Tensor, death: int, aux_weight: float) -> tuple[Tensor, Tensor]:
        """(loss, unexplained share of the variance), scalars; notes which features were active."""
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        smallest = pre.detach().flatten().topk(len(x) * self.k, sorted=False).values.min().clamp(min=0)
        f = pre * (pre >= smallest) * (pre > 0)
        left = x - (f @ self.W_dec + self.b_dec)
        unexplained = left.square().sum() / (x - x.mean(0)).square().sum()
        self._note(f.detach(), smallest)
        return unexplained + aux_weight * self._revival(pre, left.detach(), death), unexplained.detach()

    def _revival(self, pre: Tensor, left: Tensor, death: int) -> Tensor:
        dead = (self.since_active > death).nonzero()[:, 0]
        if not len(dead):
            return pre.new_zeros(())
        values, places = pre[:, dead].topk(min(len(dead), left.shape[1] // 2), dim=-1, sorted=False)
        f = torch.zeros_like(pre[:, dead]).scatter(-1, places, values.relu())
        return (left - f @ self.W_dec[dead]).square().sum() / left.square().sum()

    @torch.no_grad()
    def _note(self, f: Tensor, smallest: Tensor) -> None:
        active = (f > 0).any(dim=0)
        self.since_active = torch.where(active, 0, self.since_active + len(f))
        rate = 1.0 if self.threshold < 0 else THRESHOLD_RATE
        self.threshold += rate * (smallest - self.threshold)

    @torch.no_grad()
    def keep_norms(self) -> None:
        """Before a step: drops what of the gradient only stretches rows of W_dec."""
        assert self.W_dec.grad is not None, "there is no gradient yet"
        self.W_dec.grad -= (self.W_dec.grad * self.W_dec).sum(dim=1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def renorm(self) -> None:
        """After a step: rows of W_dec have norm 1 again."""
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)

    def state(self) -> dict[str, Tensor]:
        names = ("W_enc", "b_enc", "W_dec", "b_dec", "since_active", "threshold")
        return {name: getattr(self, name).detach() for name in names}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)
