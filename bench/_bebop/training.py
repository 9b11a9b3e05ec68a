"""Trains the heads, each from the same start on the same batches, and goes on where it was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdec.evaluation.acceptance import Acceptance
from specdec.training.data import TokenStream, Windows
from specdec.training.settings import Settings
from specdec.training.state import REPORT, STATE, prepare_output
from specdec.training.target import Target
from specdec.training.trainer import Trainer

Say = Callable[[str], None]


class KeptStates:
    """The target's hidden states, kept while the heads of one seed train: they all read the same windows."""

    def __init__(self, target: Target, limit_bytes: int) -> None:
        self.target, self.left, self.kept = target, limit_bytes, dict[tuple[int, ...], Tensor]()

    def __call__(self, numbers: Tensor, windows: Windows) -> Tensor:
        """See trainer.HiddenSource."""
        key = tuple(numbers.tolist())
        if key in self.kept:
            return self.kept[key]
        hidden = self.target.hidden(windows)
        if hidden.nbytes <= self.left:
            self.kept[key] = hidden
            self.left -= hidden.nbytes
        return hidden


def train_head(
    settings: Settings, target: Target, streams: tuple[TokenStream, TokenStream], states: KeptStates, say: Say
) -> dict[str, Any]:
    """Trains one head, or goes on with it, or leaves a finished one alone. Returns its report."""
    name = settings.output.name
    if (settings.output / REPORT).exists():
        settings.check_same_run(torch.load(settings.output / STATE, weights_only=True)["settings"])
        return _report(settings.output)
    state = prepare_output(settings.output, resume=(settings.output / STATE).exists())
    trainer = Trainer(settings, target, *streams, hidden=states)
    if state is not None:
        trainer.restore(state)

    def report(run: Trainer, loss: float, alphas: list[float]) -> None:
        if run.step_number % 20 == 0:
            say(f"{name} step {run.step_number} of {run.total} loss {loss:.4f} {run.elapsed:.0f} s")

    def evaluated(run: Trainer, result: Acceptance) -> None:
        say(f"{name} step {run.step_number}: {result}")

    trainer.run(report, evaluated)
    return _report(settings.output)


def _report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / REPORT).read_text())
    return content
