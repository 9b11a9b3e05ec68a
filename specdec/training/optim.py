"""Optimisers and the course of the learning rate."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["muon", "adamw"]
ScheduleName = Literal["constant", "cosine", "wsd"]
DEFAULT_LR: dict[str, float] = {"muon": 0.05, "adamw": 3e-3}
_NORM_LR = 2e-3  # of what Muon leaves to AdamW: the norms


def make_optimizers(head: nn.Module, name: OptimizerName, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and AdamW for vectors, or AdamW for all. Each group keeps its full rate in `base_lr`."""
    parameters = [p for p in head.parameters() if p.requires_grad]
    if name == "adamw":
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
        ]
    else:
        matrices, vectors = ([p for p in parameters if (p.ndim == 2) is wanted] for wanted in (True, False))
        optimizers = [
            torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original"),
            torch.optim.AdamW(vectors, lr=min(lr, _NORM_LR), betas=(0.9, 0.95), weight_decay=0.0),
        ]
    for group in _groups(optimizers):
        group["base_lr"] = group["lr"]
    return optimizers


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Sets every group's rate to `factor` times its full rate."""
    for group in _groups(optimizers):
        group["lr"] = group["base_lr"] * factor


def rate_factor(progress: float, schedule: ScheduleName, warmup: float) -> float:
    """Share of the full rate at this progress in [0, 1]. warmup: share of the run with a linear rise from 0.

    constant: flat after the warm-up. cosine: down to a twentieth. wsd: flat, then linear to 0.05 in the last 40 %.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        done = (progress - warmup) / max(1e-9, 1.0 - warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0 - 0.95 * max(0.0, min(1.0, (progress - 0.6) / 0.4))


def _groups(optimizers: Iterable[torch.optim.Optimizer]) -> list[dict]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]
