"""What `specdec sae train` does, and shows while it works."""

import json
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from specdec.files import replace_file
from specdec.steering import load_sae
from specdec.steering.quality import measure
from specdec.steering.save import save_sae
from specdec.steering.training.settings import Settings
from specdec.steering.training.state import prepare_output
from specdec.steering.training.trainer import Trainer
from specdec.training.batches import held_out_windows
from specdec.training.data import load_streams
from specdec.training.formats import check_paths
from specdec.training.state import REPORT, STATE
from specdec.training.target import Target


def train(options: dict[str, Any], resume: bool, console: Console) -> None:
    settings = Settings(**options)
    check_paths([*settings.data, *settings.eval_data])
    state = prepare_output(settings.output, resume)
    target = Target(settings.model, device=settings.device)
    settings.check_fits(target.config)
    with console.status("reading data"):
        stream, held_out = load_streams(
            target.tokenizer, settings.data, settings.eval_data, settings.reading(target.config.vocab_size)
        )
    console.print(f"{len(stream):,} training tokens, {len(held_out):,} held out")
    trainer = Trainer(settings, target, stream)
    if state is not None:
        trainer.restore(state)
        console.print(f"going on from buffer {trainer.buffers_done} of {settings.buffers}")
    save_sae(_trained(trainer, console), settings.output, getattr(torch, settings.save_dtype))
    sae = load_sae(settings.output)  # the figures are of what stands in the file
    windows = held_out_windows(held_out, settings.rows, settings.seq_len, settings.eval_windows)
    quality = measure(sae.to(target.device), target, windows, trainer.activations.cut)
    report = {"settings": settings.as_dict(), "minutes": round(trainer.elapsed / 60, 2), "held_out": asdict(quality)}
    replace_file(settings.output / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    (settings.output / STATE).unlink(missing_ok=True)
    console.print(f"held out, {quality.tokens:,} tokens: {quality}")
    console.print(f"SAE in {settings.output}, figures in {settings.output / REPORT}")


def _trained(trainer: Trainer, console: Console) -> Any:
    """Runs it under a progress bar (a terminal) or with a line now and then (a log)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    off = not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=off) as bar:
        task = bar.add_task("training", total=trainer.total)

        def report(step: int, unexplained: float) -> None:
            dead = (trainer.learner.since_active > trainer.settings.death).float().mean().item()
            line = f"step {step} of {trainer.total}: explained {1 - unexplained:.4f}, dead {dead:.1%}"
            bar.update(task, completed=step, description=line)
            if off and (step % 50 == 0 or step == 1):
                console.print(line)

        return trainer.run(report)
