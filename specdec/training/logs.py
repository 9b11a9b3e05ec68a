"""What TensorBoard shows of a run: scalars over optimiser steps, in OUTPUT/logs."""

from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from specdec.evaluation.acceptance import Acceptance

if TYPE_CHECKING:
    from specdec.training.trainer import Trainer

FOLDER = "logs"


class Logs:
    """Takes the trainer's reports. What an interrupted run wrote about steps after the one resumed from is hidden."""

    def __init__(self, run: "Trainer") -> None:
        self.writer = SummaryWriter(run.settings.output / FOLDER, purge_step=run.step_number + 1)
        self.elapsed = run.elapsed

    def report(self, run: "Trainer", loss: float, alphas: list[float]) -> None:
        """After a step: its loss, learning rate, mean acceptance at each chain step, tokens per second."""
        seconds, self.elapsed = run.elapsed - self.elapsed, run.elapsed
        scalars = {"loss": loss, "learning_rate": run.rate, **_by_step(alphas)}
        scalars["tokens_per_second"] = run.settings.tokens_per_step / max(seconds, 1e-9)
        self._write("train", run.step_number, scalars)

    def evaluated(self, run: "Trainer", result: Acceptance) -> None:
        scalars = {"length": result.length, "greedy_length": result.greedy_length, **_by_step(result.alpha)}
        self._write("held_out", run.step_number, scalars)

    def close(self) -> None:
        self.writer.close()

    def _write(self, group: str, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)


def _by_step(alphas: list[float]) -> dict[str, float]:
    return {f"acceptance_step_{k}": alpha for k, alpha in enumerate(alphas, 1)}
