"""How a run starts: what can be checked before the target's weights and the data are read, and the first head."""

from typing import Any

import torch

from specdec.errors import SpecdecError
from specdec.heads.checkpoint import check_fits, load_head, load_head_config
from specdec.heads.config import HeadConfig
from specdec.heads.module import MTPHead, init_from_target, init_random
from specdec.heads.native import check_native, read_native
from specdec.training.settings import Settings
from specdec.training.target import Target


def check_run(settings: Settings, target_config: Any) -> None:
    """Raises SpecdecError: windows longer than the target's positions, a first head of another target's kind or layout,
    a layout that the target's heads cannot have, no MTP layer in the target to start from."""
    longest = getattr(target_config, "max_position_embeddings", settings.seq_len)
    if settings.seq_len > longest:
        raise SpecdecError(f"--seq-len {settings.seq_len} is too long: the target knows at most {longest} positions")
    config = HeadConfig.for_target(target_config, settings.layout)
    if settings.init_from is not None:
        first = load_head_config(settings.init_from)
        check_fits(first, target_config, settings.init_from)
        if settings.layout not in (None, first.layout):
            raise SpecdecError(
                f"the head at {settings.init_from} has the layout {first.layout!r}, not {settings.layout!r}: leave out "
                "--layout, or start from another head"
            )
    elif settings.init == "native":
        check_native(settings.model, config)


def initial_head(settings: Settings, target: Target) -> MTPHead:
    """In float32 on the CPU, the same on every process. SpecdecError: as load_head, read_native, init_from_target."""
    if settings.init_from is not None:
        return load_head(settings.init_from, target.config)
    head = MTPHead(HeadConfig.for_target(target.config, settings.layout))
    if settings.init == "native":
        head.load_state_dict(read_native(settings.model, head.config))
        return head
    generator = torch.Generator().manual_seed(settings.seed)
    init_random(head, generator=generator)
    if settings.init == "last-layer":
        init_from_target(head, target.model, generator=generator)
    return head
