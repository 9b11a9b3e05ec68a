"""The row step as one Triton launch, a program per row; needs a GPU, or Triton's interpreter."""

import torch
from torch import Tensor
from triton.runtime import JITFunction

from specdec.errors import SpecdecError
from specdec.kernels.triton_losses.row_step import row_step_kernel
from specdec.training.fused.sweep import Slopes

TILE = 4096
WARPS = 8


def row_step(
    z: Tensor, t: Tensor, target_rows: Tensor | None, temperature: Tensor | None, slopes: Slopes, with_kl: bool
) -> tuple[Tensor, Tensor]:
    """See RowStep; logits in bfloat16, float16 or float32."""
    count, vocab = z.shape
    if z.dtype == torch.float64:
        raise SpecdecError("fused losses on float64 need backend 'chunked': the Triton kernel computes in float32")
    if isinstance(row_step_kernel, JITFunction) and not z.is_cuda:
        raise SpecdecError(f"fused losses on {z.device} need backend 'chunked': Triton compiles for GPUs")
    alpha, kl = (torch.zeros(count, dtype=torch.float32, device=z.device) for _ in range(2))
    row_step_kernel[(count,)](
        z, t, target_rows, temperature, slopes.alpha, slopes.kl, alpha, kl, vocab,
        WITH_KL=with_kl, TILE=TILE, num_warps=WARPS,
    )  # fmt: skip
    return alpha, kl
