"""alpha and KL of every row as one autograd function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from specdec.training.fused.sweep import RowStep, Sides, sweep

WEIGHT_ROWS = 16_384  # of W_q's gradient, made at a time


class Divergences(torch.autograd.Function):
    """(alpha [N], KL [N]) of `sides`, wide; gradients to the draft's hidden states and, where it learns, its weight.

    wanted: whether alpha and KL are to be differentiable; KL is computed only where it is. Not twice differentiable.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, sides: Sides, wanted: tuple[bool, bool], step: RowStep
    ) -> tuple[Tensor, Tensor]:
        """hidden and weight are the draft's, as in `sides`."""
        keep = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        alpha, kl = (torch.zeros(len(hidden), dtype=wide, device=hidden.device) for _ in range(2))
        kept = [torch.empty_like(hidden) if keep and want else None for want in wanted]
        slope_of = (keep and wanted[0], keep and wanted[1])
        for block in sweep(sides, step, with_kl=wanted[1], slope_of=slope_of):
            alpha[block.rows], kl[block.rows] = block.alpha, block.kl
            for gradient, slopes in zip(kept, block.slopes, strict=True):
                if gradient is not None and slopes is not None:
                    torch.mm(slopes, weight, out=gradient[block.rows])
        ctx.mark_non_differentiable(*(value for value, want in zip((alpha, kl), wanted, strict=True) if not want))
        ctx.sides = sides if ctx.needs_input_grad[1] else None
        ctx.wanted, ctx.step = wanted, step
        ctx.save_for_backward(*kept)
        return alpha, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """gradients: of alpha and KL, [N] each."""
        kept = [part for part in ctx.saved_tensors if part is not None]
        scales = [g.unsqueeze(-1) for g, want in zip(gradients, ctx.wanted, strict=True) if want]
        if ctx.needs_input_grad[1]:
            return *_sweep_back(ctx.sides, ctx.step, ctx.wanted, scales, ctx.needs_input_grad[0]), None, None, None
        total = torch.stack([scale * part for scale, part in zip(scales, kept, strict=True)]).sum(0)
        return total.to(kept[0].dtype), None, None, None, None


def _sweep_back(
    sides: Sides, step: RowStep, wanted: tuple[bool, bool], scales: list[Tensor], for_hidden: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients of the draft's hidden states and weight; scales: [N, 1] for each divergence that is wanted."""
    hidden, weight = sides.draft_hidden, sides.draft_weight
    hidden_gradient = torch.empty_like(hidden) if for_hidden else None
    wide = scales[0].dtype
    weight_gradient = torch.zeros(weight.shape, dtype=wide, device=weight.device)
    for block in sweep(sides, step, with_kl=False, slope_of=wanted):
        first, *others = (slopes for slopes in block.slopes if slopes is not None)
        first.mul_(scales[0][block.rows])
        for slopes, scale in zip(others, scales[1:], strict=True):
            first.addcmul_(slopes, scale[block.rows].to(slopes.dtype))
        if hidden_gradient is not None:
            torch.mm(first, weight, out=hidden_gradient[block.rows])
        for start in range(0, len(weight), WEIGHT_ROWS):
            part = slice(start, start + WEIGHT_ROWS)
            weight_gradient[part] += first[:, part].t() @ hidden[block.rows]
    return hidden_gradient, weight_gradient.to(weight.dtype)
