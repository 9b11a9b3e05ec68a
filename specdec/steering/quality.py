"""How good an SAE is for a model: what it explains of the stream, how sparse it is, what its errors cost the model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specdec.steering.sae import SAE
from specdec.training.data import Windows
from specdec.training.target import Target, stream_of


@dataclass(frozen=True)
class Quality:
    """Over `tokens` tokens.

    explained_variance: 1 - sum |x - x^|^2 / sum |x - mean|^2. l0: active features per token. dead: share of features
    that were active on none of them. cross_entropy in nats per token: of the model; spliced_cross_entropy: with x^ in
    the place of x at the SAE's layer.
    """

    tokens: int
    explained_variance: float
    l0: float
    dead: float
    cross_entropy: float
    spliced_cross_entropy: float

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.4f}, L0 {self.l0:.1f}, dead {self.dead:.1%}, cross entropy "
            f"{self.cross_entropy:.4f} nats, {self.spliced_cross_entropy:.4f} with the reconstruction spliced in"
        )


@torch.no_grad()
def measure(sae: SAE, target: Target, windows: Iterable[Windows], cut: float = float("inf")) -> Quality:
    """cut: tokens whose stream is longer than this are left as they are, and out of the figures (attention sinks)."""
    assert sae.layer is not None, "an SAE without a layer has no place in the model"
    layer, meter = target.model.model.layers[sae.layer], _Meter(sae, cut)
    sums = torch.zeros(3, dtype=torch.float64)  # cross entropy, with the splice, tokens
    for part in windows:
        plain = _cross_entropy(target, part)
        with layer.register_forward_hook(meter):
            spliced = _cross_entropy(target, part)
        sums += torch.tensor([plain.sum(), spliced.sum(), len(plain)], dtype=torch.float64)
    return Quality(
        meter.tokens, meter.explained(), meter.active.sum().item() / meter.tokens,
        (meter.active == 0).double().mean().item(), (sums[0] / sums[2]).item(), (sums[1] / sums[2]).item(),
    )  # fmt: skip


class _Meter:
    """A forward hook that puts the reconstruction in the place of the stream, and adds up what it sees."""

    def __init__(self, sae: SAE, cut: float) -> None:
        self.sae, self.cut = sae, cut
        self.tokens, self.active = 0, torch.zeros(sae.num_features, dtype=torch.int64, device=sae.W_enc.device)
        self.errors = self.squares = 0.0
        self.sum = torch.zeros(sae.d_in, dtype=torch.float64, device=sae.W_enc.device)

    def __call__(self, module: Any, inputs: Any, output: Any) -> Any:
        stream = stream_of(output)
        x = stream.float()
        f = self.sae.encode(x)
        made = self.sae.decode(f, x)
        usual = x.norm(dim=-1) <= self.cut
        self._add(x[usual].double(), f[usual], made[usual].double())
        replaced = torch.where(usual[..., None], made, x).to(stream.dtype)
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    def _add(self, x: Tensor, f: Tensor, made: Tensor) -> None:
        self.tokens += len(x)
        self.active += (f > 0).sum(dim=0)
        self.errors += (x - made).square().sum().item()
        self.squares += x.square().sum().item()
        self.sum += x.sum(dim=0)

    def explained(self) -> float:
        variance = self.squares - self.sum.square().sum().item() / self.tokens
        return 1 - self.errors / variance


def _cross_entropy(target: Target, windows: Windows) -> Tensor:
    """In nats, of each token that has its predecessor in its own document, float32 [n]."""
    logits = target.logits(target.normed(target.hidden(windows)))[:, :-1].float()
    same = windows.documents[:, 1:] == windows.documents[:, :-1]
    labels = windows.tokens[:, 1:].to(logits.device)
    return F.cross_entropy(logits[same], labels[same], reduction="none")
