"""The processes of a run, as `accelerate launch` starts them: one alone, copies (DDP), or shards (FSDP).

A batch is the same however many there are: each process takes its share of the windows, and gradients are summed. So a
run ends where one process would, up to rounding, and may be resumed by another number of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, patch_environment
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from specdec.errors import SpecdecError
from specdec.heads.module import MTPHead

PATIENCE = timedelta(days=1)  # the first process may fill a cache of hidden states while the others wait for it
_KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Processes:
    """count of them, this one being number `rank`, on `device`. sharded: FSDP, not copies."""

    def __init__(self, device: str = "auto") -> None:
        """device: auto (a GPU where there is one), cpu or cuda. SpecdecError: the launcher wants other things."""
        fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
        # Else transformers would leave the target empty on all processes but the first.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        # Accelerate shards on GPUs alone, and layer by layer. `wrap` does it on any device, and not twice.
        with patch_environment(ACCELERATE_USE_FSDP="false"):
            # Precision is the settings' dtype: chains are cast alike in training and evaluation (see run_states).
            self.accelerator = Accelerator(
                cpu=device == "cpu" or not torch.cuda.is_available(),
                mixed_precision="no",
                kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
            )
        self.device, self.count = self.accelerator.device, self.accelerator.num_processes
        self.rank, self.is_main = self.accelerator.process_index, self.accelerator.is_main_process
        self.sharded = fsdp and self.count > 1
        if self.accelerator.distributed_type not in _KNOWN:
            kind = self.accelerator.distributed_type.value
            raise SpecdecError(f"accelerate launch asks for {kind}: use DDP (--multi_gpu) or FSDP (--use_fsdp)")
        if device == "cuda" and self.device.type != "cuda":
            raise SpecdecError("--device 'cuda': accelerate launch was told to use the CPU; leave out one of the two")

    def __str__(self) -> str:
        if self.count == 1:
            return f"one process on {self.device.type}"
        return f"{self.count} processes on {self.device.type}, {'shards' if self.sharded else 'copies'} of the head"

    def wrap(self, head: MTPHead) -> nn.Module:
        """The head, on the device, such that a backward pass sums gradients over processes and divides by their number.

        Sharded, `head` itself is changed. As one unit: it is one layer, of which the chain calls the pieces.
        """
        if self.sharded:
            fully_shard(head.to(self.device), mesh=init_device_mesh(self.device.type, (self.count,)))
            return head
        return cast(nn.Module, self.accelerator.prepare_model(head))

    @contextmanager
    def part(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Around the passes of one part of a batch: gradients travel between processes in the last part alone."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
        elif last:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def share(self, places: Tensor) -> Tensor:
        """This process's part of a batch; parts differ by one window at most."""
        return places.tensor_split(self.count)[self.rank]

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the processes, the same on all of them."""
        if self.count == 1:
            return values
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        total: list[float] = self.accelerator.reduce(mine, reduction="sum").tolist()
        return total

    def of_main(self, value: float) -> float:
        """The first process's value, on all of them: what depends on a clock must not differ."""
        return self.sum([value if self.is_main else 0.0])[0]

    def wait(self) -> None:
        """Until all processes have come here."""
        self.accelerator.wait_for_everyone()
