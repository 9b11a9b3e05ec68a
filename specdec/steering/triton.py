"""change.py's form as one Triton launch, a program per row, in place; needs a GPU, or Triton's interpreter."""

import triton
from torch import Tensor

from specdec.kernels.triton_steering.change import change_kernel
from specdec.steering.change import READ, WRITE, Table


def change_in_place(
    hidden: Tensor, residual: Tensor | None, slots: Tensor, table: Table, thresholds: Tensor | None = None
) -> None:
    """hidden [n, d] gets the change of hidden + residual added. slots int32 [n]; thresholds float32 [n, TopK SAEs]."""
    count, width = hidden.shape
    if count == 0:
        return
    hidden_rows, residual_rows = hidden.contiguous(), None if residual is None else residual.contiguous()
    change_kernel[(count,)](
        hidden_rows, residual_rows, slots, table.counts, table.encoders, table.readings, table.decoders, table.writings,
        thresholds, WIDTH=width, MAX_EDITS=table.max_edits, READ=READ, WRITE=WRITE,
        NUM_TOPK=0 if thresholds is None else thresholds.shape[1], BLOCK=triton.next_power_of_2(width),
        num_warps=4 if width <= 2048 else 8,
    )  # fmt: skip
    if hidden_rows is not hidden:
        hidden.copy_(hidden_rows)
