"""`specdec eval`: acceptance of heads on held-out text and in serving, side by side."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField
from specdec.errors import SpecdecError
from specdec.files import make_writable

if TYPE_CHECKING:
    from specdec.evaluation.evaluate import Plan, Results
    from specdec.evaluation.filters import Filters

console = Console(highlight=False)
TABLE_WIDTH = 120


def evaluate(
    model: Annotated[Path, typer.Option(help="Folder of the target model (Hugging Face format).")],
    head: Annotated[list[Path], typer.Option(help="Folder of a head. Repeatable: the first is what others meet.")],
    data: Annotated[list[Path], typer.Option(help=f"Held-out data. {DATA}")],
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Sampling parameters, e.g. T=0.6,top_p=0.95 (top_k, min_p likewise). Repeatable."),
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Sampling temperature; 0: greedy. Repeatable; default 1.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="At each --temperature: the k most probable tokens; 0: off.")] = 0,
    top_p: Annotated[float, typer.Option(help="At each --temperature: the smallest set of this mass; 1: off.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="At each --temperature: tokens of this share of the top probability; 0: off.")
    ] = 0.0,
    num_steps_ahead: Annotated[int, typer.Option(help="Drafted tokens per step.")] = 3,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    windows: Annotated[int, typer.Option(help="Windows, evenly spread over the text.")] = 64,
    prompts: Annotated[
        int, typer.Option(help="Prompts from the data that the target continues, to predict serving; 0: none.")
    ] = 64,
    prompt_tokens: Annotated[int, typer.Option(help="Length of prompts cut from texts.")] = 32,
    output_tokens: Annotated[int, typer.Option(help="Longest continuation.")] = 80,
    engine: Annotated[
        bool, typer.Option("--engine", help="Measure in vLLM as well: the same prompts and settings, each head.")
    ] = False,
    draft_temperature: Annotated[
        str, typer.Option(help="calibrated: drafts at the head's own scales (calibration.json); same: without.")
    ] = "calibrated",
    by: Annotated[str | None, typer.Option(help="Field of the records that groups figures; default: by file.")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of prompts and continuations.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for results.json, the plots as PNG, and report.html with all of it.")
    ] = None,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
    loss_on: Annotated[str, typer.Option(help="Measure on all tokens, or on what the assistant says.")] = "all",
) -> None:
    """Measure the acceptance of heads: along held-out text, predicted for serving, and measured in the engine.

    All settings share one pass over the target. The prediction lets the target continue prompts from the data by itself
    and works out what serving those texts would take; --engine serves them and shows both.

    Examples:

        specdec eval --model MODEL --head HEAD --data held_out.jsonl --temperature 1 --temperature 0

        specdec eval --model MODEL --head HEAD --data held_out.jsonl --engine --setting T=0.6,top_p=0.95

        specdec eval --model MODEL --head TV --head CE --data math.jsonl --data code.jsonl --output report

        specdec eval --model MODEL --head A --head B --data chats.parquet --loss-on assistant --by domain
    """
    from specdec.evaluation.evaluate import Plan
    from specdec.training.encode import Reading
    from specdec.training.formats import Fields

    if loss_on not in ("all", "assistant"):
        raise SpecdecError(f"--loss-on cannot be {loss_on}: use all or assistant")
    reading = Reading(Fields(text_field, messages_field, by), chat_template, "all" if loss_on == "all" else "assistant")
    plan = Plan(
        model, list(dict.fromkeys(head)), data, _settings(setting or [], temperature or [], top_k, top_p, min_p),
        reading, num_steps_ahead, seq_len, windows, prompts, prompt_tokens, output_tokens, dtype, device, seed,
        calibrated=draft_temperature == "calibrated",
    )  # fmt: skip
    _check(plan, draft_temperature, engine)
    _check_writable(json_file, output)
    report = _report(plan, engine, output)
    _show(report)
    _write(report, json_file, output)


def _settings(
    settings: list[str], temperatures: list[float], top_k: int, top_p: float, min_p: float
) -> "list[Filters]":
    """Each once: those of --temperature with the filters beside it, then those of --setting."""
    from specdec.evaluation.filters import Filters, parse_filters

    if settings and not temperatures and (top_k, top_p, min_p) != (0, 1.0, 0.0):
        raise SpecdecError(
            "--top-k, --top-p and --min-p go with --temperature: write them into --setting, or give both"
        )
    plain = temperatures or ([] if settings else [1.0])
    found = [Filters(t, top_k, top_p, min_p).check() for t in plain] + [parse_filters(text) for text in settings]
    return list(dict.fromkeys(found))


def _check(plan: "Plan", draft_temperature: str, engine: bool) -> None:
    """What can be known before anything is loaded."""
    steps, fewest = plan.steps, 1 if engine else 0
    for option, value, fine, remedy in (
        ("--num-steps-ahead", steps, steps >= 1, "give 1 or more"),
        ("--seq-len", plan.seq_len, plan.seq_len >= steps + 2, f"give {steps + 2} or more for {steps} steps ahead"),
        ("--windows", plan.windows, plan.windows >= 1, "give 1 or more"),
        ("--prompts", plan.prompts, plan.prompts >= fewest, f"give {fewest} or more"),
        ("--prompt-tokens", plan.prompt_tokens, plan.prompt_tokens >= 2, "give 2 or more"),
        ("--output-tokens", plan.output_tokens, plan.output_tokens >= steps + 2, f"give {steps + 2} or more"),
        ("--dtype", plan.dtype, plan.dtype in ("bfloat16", "float32"), "use bfloat16 or float32"),
        ("--device", plan.device, plan.device in ("cpu", "cuda"), "use cpu or cuda"),
        ("--seed", plan.seed, plan.seed >= 0, "give 0 or more"),
        (
            "--draft-temperature", draft_temperature, draft_temperature in ("calibrated", "same"),
            "use calibrated or same",
        ),
    ):  # fmt: skip
        if not fine:
            raise SpecdecError(f"{option} cannot be {value}: {remedy}")
    if engine:
        _check_engine(plan)


def _check_engine(plan: "Plan") -> None:
    from specdec.engines.checks import check_head, check_model
    from specdec.engines.installed import require_vllm

    require_vllm()
    target = check_model(str(plan.model))
    for folder in plan.heads:
        check_head(str(folder), target)


def _check_writable(json_file: Path | None, output: Path | None) -> None:
    """Minutes of measuring must not end in a place that cannot be written."""
    for option, folder in (("--json", json_file and json_file.parent), ("--output", output)):
        if folder is None:
            continue
        try:
            make_writable(folder)
        except OSError as error:
            path = json_file if option == "--json" else folder
            raise SpecdecError(f"cannot write {path} ({error.strerror}): choose another {option}") from None


def _report(plan: "Plan", engine: bool, output: Path | None) -> dict[str, Any]:
    from specdec.evaluation.evaluate import evaluate
    from specdec.provenance import provenance

    about = provenance()  # before the load: its load average is the machine's own
    with _progress() as bar:
        results = evaluate(plan, _task(bar))
        if engine:
            _measure(plan, results, output, _task(bar))
    options = {k: v for k, v in asdict(plan).items() if isinstance(v, int | str) and k != "steps"}
    return {
        "command": ["specdec", *sys.argv[1:]],
        "model": str(plan.model),
        "heads": [str(folder) for folder in plan.heads],
        "data": [str(path) for path in plan.data],
        "settings": [str(s) for s in plan.settings],
        "options": options | {"num_steps_ahead": plan.steps},
        "results": results.rows,
        "slope_differences": results.differences,
        "provenance": about,
    }


def _measure(plan: "Plan", results: "Results", output: Path | None, progress: Callable[[str, int, int], None]) -> None:
    """Adds what the engine shows to the rows."""
    import tempfile

    import torch

    from specdec.engines.vllm.acceptance import Load, run_load
    from specdec.evaluation.measured import Measured

    if plan.device == "cuda":
        torch.cuda.empty_cache()  # what the target took, which is gone by now
    load = Load(
        results.prompts, plan.output_tokens, [s.as_dict() for s in plan.settings], plan.steps, dtype=plan.dtype,
        draft_temperature="calibrated" if plan.calibrated else "same", seed=plan.seed,
    )  # fmt: skip
    logs = output or Path(tempfile.mkdtemp(prefix="specdec-eval-"))
    rows = iter(results.rows)
    for number, folder in enumerate(plan.heads):

        def report(done: int, total: int, what: str = f"{folder.name} in the engine") -> None:
            progress(what, done, total)

        report(0, len(load.prompts) * len(load.settings))
        for parts in run_load(plan.model, folder, load, logs / f"engine-{number}.log", report):
            next(rows)["measured"] = Measured.of([part.counts for part in parts], plan.steps).as_dict()


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _task(bar: Progress) -> Callable[[str, int, int], None]:
    """What work reports to: a bar for each thing that is being done."""
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what)
        bar.update(tasks[what], completed=done, total=total)

    return report


def _show(report: dict[str, Any]) -> None:
    from specdec.evaluation.sheets import sheets

    # The whole width even where the terminal is narrower or there is none: wrapped rows can be read, cut cells cannot.
    wide = Console(highlight=False, width=max(console.width, TABLE_WIDTH))
    for sheet in sheets(report):
        wide.print(sheet.for_terminal())


def _write(report: dict[str, Any], json_file: Path | None, output: Path | None) -> None:
    from specdec.evaluation.report import as_json, write_report
    from specdec.files import replace_file

    try:
        if json_file is not None:
            replace_file(json_file, as_json(report))
        if output is not None:
            names = ", ".join(path.name for path in write_report(output, report))
            console.print(f"wrote {names} in {output}", soft_wrap=True)
    except OSError as error:
        raise SpecdecError(f"cannot write the results ({error}): choose another --json or --output") from None
