"""What `specdec train` shows while it works: progress bars, or lines in a log; TensorBoard's scalars."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()


def show_filling(cache: Any) -> None:
    """Fills a cache of hidden states under a progress bar (a terminal) or with a line for each tenth (a log)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task, tenths = bar.add_task("hidden states (windows)"), set[int]()

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and 10 * done // total not in tenths:
                tenths.add(10 * done // total)
                console.print(f"hidden states: {done:,} of {total:,} windows", highlight=False, soft_wrap=True)

        cache.fill(lambda line: console.print(line, highlight=False, soft_wrap=True), progress)


def show_training(trainer: Any) -> dict[str, Any]:
    """Runs the trainer, with TensorBoard's scalars where they are wanted."""
    if not (trainer.settings.tensorboard and trainer.processes.is_main):
        return _with_progress(trainer, [])
    from specdec.training.logs import Logs

    logs = Logs(trainer)
    try:
        return _with_progress(trainer, [logs])
    finally:
        logs.close()


def _with_progress(trainer: Any, logs: list[Any]) -> dict[str, Any]:
    """Runs the trainer under a progress bar (a terminal) or with a line now and then (a log)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=1.0)

        def report(run: Any, loss: float, alphas: list[float]) -> None:
            speed = run.step_number * run.settings.tokens_per_step / max(run.elapsed, 1e-9)
            per_step = " ".join(f"{a:.3f}" for a in alphas)
            line = f"step {run.step_number} loss {loss:.4f} acceptance {per_step} {speed:,.0f} tok/s"
            for log in logs:
                log.report(run, loss, alphas)
            progress.update(task, completed=min(1.0, run.progress), description=line)
            if not console.is_terminal and (run.step_number % 20 == 0 or run.step_number == 1):
                console.print(line, highlight=False, soft_wrap=True)

        def evaluated(run: Any, result: Any) -> None:
            for log in logs:
                log.evaluated(run, result)
            console.print(f"step {run.step_number} held out: {result}", highlight=False, soft_wrap=True)

        summary: dict[str, Any] = trainer.run(report, evaluated)
    return summary
