"""`specdec train`: trains a head for a model on text."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField

console = Console()


def train(
    model: Annotated[Path, typer.Option(help="Folder of the target model (Hugging Face format).")],
    data: Annotated[list[Path], typer.Option(help=DATA)],
    output: Annotated[Path, typer.Option(help="Folder for the head; must not hold one yet.")],
    loss: Annotated[str, typer.Option(help="e2e-tv, tv, neg-log-alpha, lk-hybrid, kl, reverse-kl or ce.")] = "e2e-tv",
    num_steps_ahead: Annotated[int, typer.Option(help="Drafted tokens per step that the head is trained for.")] = 3,
    eval_data: Annotated[list[Path] | None, typer.Option(help="Held-out text; default: a twentieth of --data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimiser steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Budget in minutes. With --steps: whichever ends first.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per optimiser step.")] = 4096,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    optimizer: Annotated[str, typer.Option(help="muon (matrices; AdamW for the rest) or adamw.")] = "muon",
    lr: Annotated[float | None, typer.Option(help="Learning rate; default 0.05 for muon, 0.003 for adamw.")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the run with a rising learning rate.")] = 0.03,
    schedule: Annotated[str, typer.Option(help="constant, cosine, or wsd (constant, then linear decay).")] = "wsd",
    temperature: Annotated[float, typer.Option(help="Temperature of both distributions in the loss.")] = 1.0,
    labels: Annotated[str, typer.Option(help="For ce: the text's tokens, or tokens sampled from the target.")] = "text",
    weighting: Annotated[
        str | None,
        typer.Option(help="one-minus-p: a token's loss times 1 - the target's p(token), for noisy demonstrations."),
    ] = None,
    init: Annotated[str, typer.Option(help="random, or last-layer: a copy of the target's.")] = "random",
    init_from: Annotated[Path | None, typer.Option(help="Start from the head in this folder.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --output.")] = False,
    eval_every: Annotated[int, typer.Option(help="Steps between held-out evaluations.")] = 200,
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 2.0,
    eval_windows: Annotated[int, typer.Option(help="Held-out windows per evaluation.")] = 64,
    dtype: Annotated[
        str, typer.Option(help="bfloat16 or float32: of the target and of the head's arithmetic.")
    ] = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
    loss_on: Annotated[
        str, typer.Option(help="all tokens, or only the assistant's: of chats, and of what `specdec generate` sampled.")
    ] = "all",
    cache_hidden: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps the target's hidden states (tokens x hidden size x bytes of --dtype), for several "
            "epochs or heads over the same data. Filled before training starts; an interrupted filling goes on."
        ),
    ] = None,
) -> None:
    """Train a multi-token-prediction head: the target stays as it is, the head learns to draft for it.

    Examples:

        specdec train --model MODEL --data own.jsonl --output HEAD

        specdec train --model MODEL --data chats.parquet --loss-on assistant --output HEAD

        specdec train --model MODEL --data saved_dataset --text-field content --steps 5000 --output HEAD

        specdec train --model MODEL --data own.jsonl --cache-hidden states --loss kl --output HEAD_KL
    """
    options = {k: v for k, v in locals().items() if k != "resume"} | {"eval_data": eval_data or []}
    _run(options, resume)


def _run(options: dict[str, Any], resume: bool) -> None:
    from specdec.training.formats import check_paths
    from specdec.training.settings import Settings
    from specdec.training.state import REPORT, prepare_output

    settings = Settings(**options)
    check_paths([*settings.data, *settings.eval_data])
    state = prepare_output(settings.output, resume)
    if state is not None:
        settings.check_same_run(state["settings"])
    trainer = _make_trainer(settings)
    if state is not None:
        trainer.restore(state)
        console.print(f"going on from step {trainer.step_number}, {trainer.elapsed / 60:.1f} minutes in")
    summary = _with_progress(trainer)
    held_out = summary["held_out"]
    for k, (alpha, greedy) in enumerate(zip(held_out["alpha"], held_out["greedy_alpha"], strict=True), 1):
        console.print(f"step {k}: acceptance {alpha:.4f} (target-only {greedy:.4f})")
    console.print(
        f"acceptance length {held_out['length']:.4f} tokens per step (target-only {held_out['greedy_length']:.4f})"
    )
    console.print(f"head in {settings.output}, figures in {settings.output / REPORT}", highlight=False, soft_wrap=True)


def _make_trainer(settings: Any) -> Any:
    import torch

    from specdec.training.data import load_streams
    from specdec.training.target import Target
    from specdec.training.trainer import Trainer

    target = Target(settings.model, getattr(torch, settings.dtype), settings.device)
    with console.status("reading data") as status:
        stream, held_out = load_streams(
            target.tokenizer, settings.data, settings.eval_data, settings.reading(target.config.vocab_size),
            lambda documents, tokens: status.update(f"reading data: {documents:,} documents, {tokens:,} tokens"),
        )  # fmt: skip
    console.print(f"{len(stream):,} training tokens, {len(held_out):,} held out", highlight=False)
    trainer = Trainer(settings, target, stream, held_out)
    if settings.cache_hidden is not None:
        trainer.hidden = _cached_states(settings, trainer)
    return trainer


def _cached_states(settings: Any, trainer: Any) -> Any:
    """Fills the cache under a progress bar (a terminal) or with a line for each tenth (a log)."""
    from specdec.training.hidden_cache import HiddenCache

    cache = HiddenCache(settings.cache_hidden, trainer.target, trainer.batches, settings.model)
    console.print(str(cache), highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task, tenths = bar.add_task("hidden states (windows)"), set[int]()

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and 10 * done // total not in tenths:
                tenths.add(10 * done // total)
                console.print(f"hidden states: {done:,} of {total:,} windows", highlight=False, soft_wrap=True)

        cache.fill(lambda line: console.print(line, highlight=False, soft_wrap=True), progress)
    return cache.hidden


def _with_progress(trainer: Any) -> dict[str, Any]:
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
            speed = run.step_number * run.settings.rows * run.settings.seq_len / max(run.elapsed, 1e-9)
            per_step = " ".join(f"{a:.3f}" for a in alphas)
            line = f"step {run.step_number} loss {loss:.4f} acceptance {per_step} {speed:,.0f} tok/s"
            progress.update(task, completed=min(1.0, run.progress), description=line)
            if not console.is_terminal and (run.step_number % 20 == 0 or run.step_number == 1):
                console.print(line, highlight=False, soft_wrap=True)

        def evaluated(run: Any, result: Any) -> None:
            console.print(f"step {run.step_number} held out: {result}", highlight=False, soft_wrap=True)

        summary: dict[str, Any] = trainer.run(report, evaluated)
    return summary
