"""The one form that SAEs of all formats are read into: x -> features f -> reconstruction.

    f = activation(n(x) W_enc + b_enc)        x^ = (f W_dec + b_dec) sigma(x) + mu(x)

with x the residual stream as the model has it. What a format does around this is folded in: subtracting the decoder's
bias from the input (into b_enc), scaling inputs by a constant (into W_enc, W_dec and b_dec), transposed weights.
Activations keep the SAE's own units, so that published thresholds and strengths hold.

n, sigma and mu are x, 1 and 0 except where inputs are normalised token by token, which cannot be folded:
    layer_norm    n(x) = (x - mean) / (std + 1e-5), sigma = std (of d - 1), mu = mean: SAELens' "layer_norm"
    norm          n(x) = x sqrt(d) / |x|, sigma = |x| / sqrt(d), mu = 0: SAELens' "constant_norm_rescale"
A change of f by df changes the stream by sigma(x) df W_dec.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.steering.activations import Activation

Normalization = Literal["none", "layer_norm", "norm"]
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class SAE:
    """W_enc [d, s], b_enc [s], W_dec [s, d], b_dec [d], float32 as loaded.

    layer: 0-based decoder layer whose output (residual stream) it reads; None: not known, or another place: see hook.
    hook: that place's name in the file; model_name: as the file has it; path: of what was loaded.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    activation: Activation
    format: str
    path: Path
    normalization: Normalization = "none"
    layer: int | None = None
    hook: str | None = None
    model_name: str | None = None

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def num_features(self) -> int:
        return self.W_enc.shape[1]

    @property
    def name(self) -> str:
        """Of the file or folder."""
        return self.path.name

    @property
    def layer_norm(self) -> bool:
        """Whether inputs are normalised token by token, so that changes are multiplied by sigma(x)."""
        return self.normalization != "none"

    def sigma(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., 1]: what a decoded change is multiplied by."""
        x = x.to(self.W_enc.dtype)
        if self.normalization == "layer_norm":
            return x.std(dim=-1, keepdim=True)
        if self.normalization == "norm":
            return x.norm(dim=-1, keepdim=True) / self.d_in**0.5
        return torch.ones_like(x[..., :1])

    def encode(self, x: Tensor) -> Tensor:
        """Activations [..., s] of all features for x [..., d], in the SAE's type."""
        return self.activation(self.pre_activations(x))

    def pre_activations(self, x: Tensor) -> Tensor:
        """What `activation` is applied to: [..., s] for x [..., d]."""
        return self._normalized(x) @ self.W_enc + self.b_enc

    def encode_features(self, x: Tensor, ids: Tensor) -> Tensor:
        """Those of the features ids [n] alone: [..., n], equal to encode(x)[..., ids] up to rounding."""
        if self.activation.needs_all:
            return self.encode(x)[..., ids]
        return self.activation.of(self._normalized(x) @ self.W_enc[:, ids] + self.b_enc[ids], ids)

    def decode(self, f: Tensor, x: Tensor | None = None) -> Tensor:
        """Reconstruction [..., d] of f [..., s], in units of the residual stream.

        x [..., d]: what f was encoded from; only SAEs with layer_norm need it. SpecdecError: it is missing there.
        """
        decoded = f.to(self.W_dec.dtype) @ self.W_dec + self.b_dec
        if not self.layer_norm:
            return decoded
        if x is None:
            raise SpecdecError(
                f"the SAE at {self.path} normalises its input token by token: give decode(f, x) the input x as well"
            )
        return decoded * self.sigma(x) + self._mean(x)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        moved = {
            name: getattr(self, name).to(device=device, dtype=dtype) for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        }
        return replace(self, activation=self.activation.to(device, dtype), **moved)

    def _mean(self, x: Tensor) -> Tensor:
        x = x.to(self.W_enc.dtype)
        return x.mean(dim=-1, keepdim=True) if self.normalization == "layer_norm" else torch.zeros_like(x[..., :1])

    def _normalized(self, x: Tensor) -> Tensor:
        x = x.to(self.W_enc.dtype)
        if self.normalization == "layer_norm":
            return (x - self._mean(x)) / (self.sigma(x) + _EPSILON)
        if self.normalization == "norm":
            return x / self.sigma(x)
        return x
