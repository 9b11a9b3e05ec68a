"""`specdec train`: trains a head for a model on text."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField
from specdec.commands.train_progress import console, show_filling, show_training
from specdec.errors import SpecdecError
from specdec.training.robust import ROBUST


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
    batch_tokens: Annotated[
        int, typer.Option(help="Tokens per batch, shared out among the processes. A step takes --accumulate batches.")
    ] = 4096,
    accumulate: Annotated[
        int, typer.Option(help="Batches per optimiser step, one after the other: a larger step in the same memory.")
    ] = 1,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    optimizer: Annotated[str, typer.Option(help="muon (matrices; AdamW for the rest) or adamw.")] = "muon",
    lr: Annotated[float | None, typer.Option(help="Learning rate; default 0.05 for muon, 0.003 for adamw.")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the run with a rising learning rate.")] = 0.03,
    schedule: Annotated[str, typer.Option(help="constant, cosine, or wsd (constant, then linear decay).")] = "wsd",
    temperature: Annotated[float, typer.Option(help="Temperature of both distributions in the loss.")] = 1.0,
    temperatures: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Lowest and highest temperature: each chain gets one of its own, in place of --temperature."),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Train a share of the chains under this filter; 0: off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Likewise; 1: off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Likewise; 0: off.")] = 0.0,
    filtered: Annotated[float, typer.Option(help="That share.")] = 0.25,
    kl_weight: Annotated[float, typer.Option(help="Add so much of KL(p || q) at temperature 1 to the loss.")] = 0.0,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust",
            help="One head for all temperatures and filters: --loss e2e-tv --temperatures 0.9 1.9 --top-p 0.95 "
            "--filtered 0.25 --kl-weight 0.3.",
        ),
    ] = False,
    labels: Annotated[str, typer.Option(help="For ce: the text's tokens, or tokens sampled from the target.")] = "text",
    weighting: Annotated[
        str | None,
        typer.Option(help="one-minus-p: a token's loss times 1 - the target's p(token), for noisy demonstrations."),
    ] = None,
    init: Annotated[
        str, typer.Option(help="random, last-layer: of the target, or native: the MTP layer that it came with.")
    ] = "random",
    init_from: Annotated[Path | None, typer.Option(help="Start from the head in this folder.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="eagle: for stock engines (`specdec head export`). Default: what this plugin serves."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --output.")] = False,
    eval_every: Annotated[int, typer.Option(help="Steps between held-out evaluations.")] = 200,
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 2.0,
    eval_windows: Annotated[int, typer.Option(help="Held-out windows per evaluation.")] = 64,
    dtype: Annotated[
        str, typer.Option(help="bfloat16 or float32: of the target and of the head's arithmetic.")
    ] = "bfloat16",
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Less memory, more computing; the result is the same.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard scalars to OUTPUT/logs.")] = True,
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

        specdec train --model MiMo-7B-RL --data own.jsonl --init native --output HEAD

        specdec train --model MODEL --data own.jsonl --output HEAD --robust

        specdec train --model MODEL --data own.jsonl --cache-hidden states --loss kl --output HEAD_KL

    Several GPUs, here 4: the same command behind `accelerate launch -m`. They share each batch, so the head is the same
    up to rounding. --use_fsdp in place of --multi_gpu shards the head, its gradients and its optimiser's state; each
    GPU holds the whole target. --resume goes on with any number of processes.

        accelerate launch --multi_gpu --num_processes 4 -m specdec train --model MODEL --data own.jsonl --output HEAD
    """
    options = {k: v for k, v in locals().items() if k not in ("resume", "robust")} | {"eval_data": eval_data or []}
    if robust:
        options |= ROBUST
    _run(options, resume)


def _run(options: dict[str, Any], resume: bool) -> None:
    _check_packages(options["tensorboard"])
    from specdec.training.formats import check_paths
    from specdec.training.processes import Processes
    from specdec.training.settings import Settings
    from specdec.training.start import check_run
    from specdec.training.state import prepare_output
    from specdec.training.target import load_config

    settings = Settings(**options)
    check_paths([*settings.data, *settings.eval_data])
    check_run(settings, load_config(settings.model))
    processes = Processes(settings.device)
    console.quiet = not processes.is_main
    state = prepare_output(settings.output, resume)
    if state is not None:
        settings.check_same_run(state["settings"])
    trainer = _make_trainer(settings, processes)
    if state is not None:
        trainer.restore(state)
        console.print(f"going on from step {trainer.step_number}, {trainer.elapsed / 60:.1f} minutes in")
    _show(show_training(trainer), settings.output)
    processes.accelerator.end_training()


def _check_packages(tensorboard: bool) -> None:
    needed = ("transformers", "accelerate", *(("tensorboard",) if tensorboard else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SpecdecError(
            f"specdec train needs {' and '.join(missing)}, not installed here: pip install 'specdec[train]'"
            + (" or give --no-tensorboard" if missing == ["tensorboard"] else "")
        )


def _show(summary: dict[str, Any], output: Path) -> None:
    from specdec.training.state import REPORT

    held_out = summary["held_out"]
    for k, (alpha, greedy) in enumerate(zip(held_out["alpha"], held_out["greedy_alpha"], strict=True), 1):
        console.print(f"step {k}: acceptance {alpha:.4f} (target-only {greedy:.4f})")
    console.print(
        f"acceptance length {held_out['length']:.4f} tokens per step (target-only {held_out['greedy_length']:.4f})"
    )
    console.print(f"head in {output}, figures in {output / REPORT}", highlight=False, soft_wrap=True)


def _make_trainer(settings: Any, processes: Any) -> Any:
    import torch

    from specdec.training.data import load_streams
    from specdec.training.target import Target
    from specdec.training.trainer import Trainer

    target = Target(settings.model, getattr(torch, settings.dtype), str(processes.device))
    with console.status("reading data") as status:
        stream, held_out = load_streams(
            target.tokenizer, settings.data, settings.eval_data, settings.reading(target.config.vocab_size),
            lambda documents, tokens: status.update(f"reading data: {documents:,} documents, {tokens:,} tokens"),
        )  # fmt: skip
    console.print(f"{len(stream):,} training tokens, {len(held_out):,} held out", highlight=False)
    trainer = Trainer(settings, target, stream, held_out, processes=processes)
    console.print(
        f"{settings.tokens_per_step:,} tokens per step: {settings.accumulate} x {settings.rows} windows of "
        f"{settings.seq_len}; {processes}", highlight=False,
    )  # fmt: skip
    if settings.cache_hidden is not None:
        trainer.hidden = _cached_states(settings, trainer)
    return trainer


def _cached_states(settings: Any, trainer: Any) -> Any:
    """The states from the cache; the first process fills it, the others wait."""
    from specdec.training.hidden_cache import HiddenCache

    if not trainer.processes.is_main:
        trainer.processes.wait()
    cache = HiddenCache(settings.cache_hidden, trainer.target, trainer.batches, settings.model)
    if trainer.processes.is_main:
        console.print(str(cache), highlight=False, soft_wrap=True)
        show_filling(cache)
        trainer.processes.wait()
    return cache.hidden
