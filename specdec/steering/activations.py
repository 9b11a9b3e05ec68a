"""What makes feature activations f of an SAE's encoder pre-activations; every tensor in the SAE's own units.

`of` gives the same for some features alone, which is what steering needs: one feature costs one encoder column. TopK
cannot: whether a feature is active depends on all others.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


class Activation(ABC):
    """pre [..., s] -> f [..., s]. needs_all: `of` is not available, since a feature depends on the others."""

    needs_all: bool = False

    @abstractmethod
    def __call__(self, pre: Tensor) -> Tensor:
        """Activations [..., s] of all features."""

    @abstractmethod
    def of(self, pre: Tensor, ids: Tensor) -> Tensor:
        """Activations of the features ids [n] from their pre-activations alone: [..., n] -> [..., n]."""

    @abstractmethod
    def of_one(self, feature: int) -> tuple[float, float | None, float]:
        """(gain, bias, threshold) of one feature: f = max(gain * u + bias, 0) where pre > threshold, else 0.

        u: the pre-activation without the encoder's bias. bias None: the encoder's own.
        """

    @abstractmethod
    def __str__(self) -> str:
        """For people: kind and parameters in a few words."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        return self


class ReLU(Activation):
    """f = max(pre, 0)."""

    def __call__(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def of(self, pre: Tensor, ids: Tensor) -> Tensor:
        return pre.relu()

    def of_one(self, feature: int) -> tuple[float, float | None, float]:
        return 1.0, None, 0.0

    def __str__(self) -> str:
        return "ReLU"


@dataclass(frozen=True, eq=False)
class JumpReLU(Activation):
    """f = max(pre, 0) where pre > threshold, else 0 (arXiv 2407.14435). threshold [s]."""

    threshold: Tensor

    def __call__(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def of(self, pre: Tensor, ids: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold[ids])

    def of_one(self, feature: int) -> tuple[float, float | None, float]:
        return 1.0, None, self.threshold[feature].item()

    def __str__(self) -> str:
        lowest, highest = f"{self.threshold.min().item():.4g}", f"{self.threshold.max().item():.4g}"
        return f"JumpReLU, threshold {lowest}" + (f" to {highest}" if highest != lowest else "")

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        return replace(self, threshold=self.threshold.to(device=device, dtype=dtype))


@dataclass(frozen=True, eq=False)
class TopK(Activation):
    """The k largest pre-activations of a token, those above 0; the others 0 (arXiv 2406.04093)."""

    k: int
    needs_all = True

    def __call__(self, pre: Tensor) -> Tensor:
        values, places = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter_(-1, places, values.relu())

    def of(self, pre: Tensor, ids: Tensor) -> Tensor:
        raise TypeError("which features TopK keeps depends on all of them: encode all, then select")

    def of_one(self, feature: int) -> tuple[float, float | None, float]:
        raise TypeError("a feature's threshold under TopK is the token's own: the k-th largest pre-activation")

    def __str__(self) -> str:
        return f"TopK, k {self.k}"


@dataclass(frozen=True, eq=False)
class Gated(Activation):
    """f = max(exp(r_mag) * u + b_mag, 0) where pre > 0, else 0 (arXiv 2404.16014). r_mag, b_mag, b_gate [s].

    Gate and magnitude share the encoder column u = pre - b_gate; b_gate is the SAE's b_enc.
    """

    r_mag: Tensor
    b_mag: Tensor
    b_gate: Tensor

    def __call__(self, pre: Tensor) -> Tensor:
        return _gated(pre, self.r_mag, self.b_mag, self.b_gate)

    def of(self, pre: Tensor, ids: Tensor) -> Tensor:
        return _gated(pre, self.r_mag[ids], self.b_mag[ids], self.b_gate[ids])

    def of_one(self, feature: int) -> tuple[float, float | None, float]:
        return self.r_mag[feature].exp().item(), self.b_mag[feature].item(), 0.0

    def __str__(self) -> str:
        return "gated"

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        r_mag, b_mag, b_gate = (t.to(device=device, dtype=dtype) for t in (self.r_mag, self.b_mag, self.b_gate))
        return replace(self, r_mag=r_mag, b_mag=b_mag, b_gate=b_gate)


def _gated(pre: Tensor, r_mag: Tensor, b_mag: Tensor, b_gate: Tensor) -> Tensor:
    return (r_mag.exp() * (pre - b_gate) + b_mag).relu() * (pre > 0)
