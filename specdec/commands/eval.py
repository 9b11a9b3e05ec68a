"""`specdec eval`: acceptance of heads on held-out text, side by side."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField
from specdec.errors import SpecdecError

console = Console()


def evaluate(
    model: Annotated[Path, typer.Option(help="Folder of the target model (Hugging Face format).")],
    head: Annotated[list[Path], typer.Option(help="Folder of a head. Repeatable.")],
    data: Annotated[list[Path], typer.Option(help=f"Held-out data. {DATA}")],
    temperature: Annotated[
        list[float] | None, typer.Option(help="Sampling temperature; 0: greedy. Repeatable; default 1.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Keep the k most probable tokens; 0: off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the smallest set of this mass; 1: off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep tokens of this share of the top probability; 0: off.")] = 0.0,
    num_steps_ahead: Annotated[int, typer.Option(help="Drafted tokens per step.")] = 3,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    windows: Annotated[int, typer.Option(help="Windows, evenly spread over the text.")] = 64,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")] = None,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
    loss_on: Annotated[str, typer.Option(help="Measure on all tokens, or on what the assistant says.")] = "all",
) -> None:
    """Measure the acceptance of heads on held-out text: per step, and as tokens per target step.

    Examples:

        specdec eval --model MODEL --head HEAD --data held_out.jsonl --temperature 1 --temperature 0

        specdec eval --model MODEL --head A --head B --data chats.parquet --loss-on assistant
    """
    _check(temperature or [1.0], top_k, top_p, min_p, num_steps_ahead, seq_len, windows, dtype)
    if loss_on not in ("all", "assistant"):
        raise SpecdecError(f"--loss-on cannot be {loss_on}: use all or assistant")
    reading = (text_field, messages_field, chat_template, loss_on)
    filters = [(t, top_k, top_p, min_p) for t in temperature or [1.0]]
    rows = _measure(model, head, data, reading, filters, num_steps_ahead, seq_len, windows, dtype)
    console.print(_table(rows, num_steps_ahead))
    if json_file is not None:
        _write_json(json_file, {"model": str(model), "data": [str(d) for d in data], "results": rows})


def _check(
    temperatures: list[float],
    top_k: int,
    top_p: float,
    min_p: float,
    steps: int,
    seq_len: int,
    windows: int,
    dtype: str,
) -> None:
    wrong = [
        ("--temperature", t, "give a number from 0 up") for t in temperatures if not 0 <= t < float("inf")
    ] + [
        (option, value, remedy)
        for option, value, fine, remedy in (
            ("--top-k", top_k, top_k >= 0, "give 0 (off) or more"),
            ("--top-p", top_p, 0 < top_p <= 1, "give a number above 0, up to 1 (off)"),
            ("--min-p", min_p, 0 <= min_p <= 1, "give a number from 0 (off) to 1"),
            ("--num-steps-ahead", steps, steps >= 1, "give 1 or more"),
            ("--seq-len", seq_len, seq_len >= steps + 2, f"give {steps + 2} or more for {steps} steps ahead"),
            ("--windows", windows, windows >= 1, "give 1 or more"),
            ("--dtype", dtype, dtype in ("bfloat16", "float32"), "use bfloat16 or float32"),
        )
        if not fine
    ]  # fmt: skip
    if wrong:
        option, value, remedy = wrong[0]
        raise SpecdecError(f"{option} cannot be {value}: {remedy}")


def _measure(
    model: Path, heads: list[Path], data: list[Path], how: tuple[Any, ...],
    filters: list[tuple[float, int, float, float]], steps: int, seq_len: int, count: int, dtype: str,
) -> list[dict[str, Any]]:  # fmt: skip
    import torch

    from specdec.evaluation.acceptance import Filters, measure_acceptance
    from specdec.heads import load_head
    from specdec.training.batches import held_out_windows
    from specdec.training.data import TokenStream, load_documents
    from specdec.training.encode import Reading
    from specdec.training.formats import Fields, check_paths
    from specdec.training.target import Target

    check_paths(data)
    target = Target(model, getattr(torch, dtype))
    loaded = [load_head(folder, target.config) for folder in heads]  # every fault shows before the work starts
    text_field, messages_field, chat_template, loss_on = how
    reading = Reading(Fields(text_field, messages_field), chat_template, loss_on, target.config.vocab_size)
    stream = TokenStream.of(load_documents(target.tokenizer, data, reading))
    windows = held_out_windows(stream, 16, seq_len, count)
    return [
        {"head": str(folder)}
        | measure_acceptance(head, target, windows, steps, Filters(*values), autocast=dtype == "bfloat16").as_dict()
        for folder, head in zip(heads, loaded, strict=True)
        for values in filters
    ]


def _table(rows: list[dict[str, Any]], steps: int) -> Table:
    table = Table(title="held-out acceptance")
    for name in ("head", "T", *(f"step {k}" for k in range(1, steps + 1)), "length", "target-only length"):
        table.add_column(name, justify="left" if name == "head" else "right")
    for row in rows:
        alphas = (f"{a:.4f}" for a in row["alpha"])
        temperature = f"{row['filters']['temperature']:g}"
        table.add_row(row["head"], temperature, *alphas, f"{row['length']:.4f}", f"{row['greedy_length']:.4f}")
    return table


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from specdec.heads.checkpoint import replace_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise SpecdecError(f"cannot write {path} ({error.strerror}): choose another --json file") from None
