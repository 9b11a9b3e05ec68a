"""A folder with what `specdec eval` takes: a random target `model`, heads `near` its distribution and `far`, `text`."""

from pathlib import Path

import torch

from specdec.heads import HeadConfig, MTPHead, save_head
from specdec.heads.module import init_from_target
from specdec.training.target import Target
from tests.helpers.tiny_models import make_target, write_text


def make_evaluated(path: Path) -> Path:
    make_target(path / "model")
    write_text(path / "text", 6)
    target = Target(path / "model", torch.float32)
    for name, noise in (("near", 0.01), ("far", 2.0)):
        head = MTPHead(HeadConfig.for_target(target.config))
        init_from_target(head, target.model, noise, torch.Generator().manual_seed(0))
        save_head(head, path / name)
    return path
