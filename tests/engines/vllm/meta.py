"""Steps on tensors without data, from which nothing can be read.

torch's meta device knows shapes and dtypes alone, and raises where a value is asked for (item, tolist, a copy to the
host, an index by mask). The kernels of a GPU backend are left out; what leads to them and away from them is all there.
"""

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import VerifyOutput
from specdec.verify.backends import BACKENDS
from specdec.verify.device_step import begin, end
from specdec.verify.types import OnBadRow, VerifyInput

META = torch.device("meta")


class WithoutKernels:
    """A GPU backend's frame."""

    def problem(self) -> str:
        return "it has none"

    def accepts(self, device: torch.device) -> bool:
        return device.type == "meta"

    def verify_token(self, given: VerifyInput) -> VerifyOutput:
        return end(begin(given), given.on_bad_row)

    verify_block = verify_token

    def sample_draft(self, logits: Tensor, sampling: SamplingBatch, step: int, bad: OnBadRow) -> tuple[Tensor, Tensor]:
        rows = len(logits)
        return logits.new_empty(rows, dtype=torch.int32), logits.new_empty(rows, 4, dtype=torch.float64)


BACKENDS.register("without-kernels", WithoutKernels)


def meta(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)
