"""`specdec demo`: real servers on loopback with and without speculation, one table, report.json and report.html."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from specdec.engines.command import KINDS
from specdec.errors import SpecdecError
from specdec.files import make_writable

EXAMPLE = Path("examples/tiny-lm")
TABLE_WIDTH = 120


def demo(
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = EXAMPLE / "model",
    head: Annotated[Path, typer.Option(help="Folder of its head.")] = EXAMPLE / "head",
    corpus: Annotated[
        Path, typer.Option(help="Python file with documents(held_out): where the prompts come from.")
    ] = EXAMPLE / "corpus.py",
    output: Annotated[Path, typer.Option(help="Folder for report.json, report.html and the servers' logs.")] = Path(
        "build/demo"
    ),
    requests: Annotated[int, typer.Option(min=1, help="Requests per load.")] = 32,
    output_tokens: Annotated[int, typer.Option(min=2, help="Tokens of output per request.")] = 96,
    num_drafts: Annotated[int, typer.Option(min=1, max=16, help="Tokens drafted per step.")] = 3,
    runs: Annotated[str, typer.Option(help="Which runs, separated by commas.")] = ",".join(KINDS),
    quick: Annotated[
        bool, typer.Option("--quick", help="Eager servers and eight short requests: does it work at all?")
    ] = False,
) -> None:
    """Serve a model with and without its head and show what it gains.

    Starts the real OpenAI server several times: without speculation, with drafts sampled from the head and verified by
    the token rule and by the block rule, with greedy drafts, and with vLLM's own sampled drafts (known to be wrong on a
    CPU). Each gets the same streaming requests, cut
    from files the model never saw, one at a time and eight at a time. About ten minutes on two cores.

    Examples:

        specdec demo

        specdec demo --quick --output /tmp/demo

        specdec demo --model DIR --head DIR --runs none,specdec --output-tokens 128
    """
    from specdec.demo.page import html_page
    from specdec.demo.prompts import cut_prompts, held_out_documents
    from specdec.demo.report import build_report, write_report
    from specdec.demo.runner import Demo, Plan
    from specdec.demo.table import terminal_table
    from specdec.engines.checks import check_head, check_model
    from specdec.engines.installed import require_vllm
    from specdec.provenance import provenance

    # A terminated demo must take its servers along: SystemExit runs their __exit__.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    engine = require_vllm()
    if not model.is_dir():
        raise SpecdecError(
            f"Model folder {str(model)!r} does not exist: run in a checkout of specdec, or give --model and --head."
        )
    kinds = _chosen(runs)
    target = check_model(str(model))
    if kinds != ("none",):
        check_head(str(head), target)
    _check_writable(output)
    tokens, count = (32, 8) if quick else (output_tokens, requests)
    plan = Plan(str(model), str(head), tokens, count, num_drafts, kinds=kinds, quick=quick)
    console = Console(highlight=False)
    about = provenance()  # before the load: its load average is the machine's own
    console.print(
        f"{about['cpu']}, {about['cores']} cores, {engine.distribution} {engine.version}; prompts from {corpus}"
    )
    prompts = cut_prompts(held_out_documents(corpus), model, plan.requests)
    measured = Demo(plan, engine, prompts, output, console).measure()
    report = build_report(measured, {**plan.facts(), "prompts": [p.source for p in prompts]}, about)
    write_report(output, report, html_page(report))
    console.print()
    # The whole width even where the terminal is narrower or there is none: wrapped rows can be read, cut cells cannot.
    Console(highlight=False, width=max(console.width, TABLE_WIDTH)).print(terminal_table(report))
    for c, gain in report["speedup"].get("specdec", {}).items():
        console.print(f"[bold]{gain:.2f}×[/] the tokens/s without speculation at concurrency {c}")
    console.print(f"wrote {output / 'report.json'} and {output / 'report.html'}")


def _chosen(runs: str) -> tuple:
    """The kinds named in a comma-separated list, in the order in which they have to run."""
    from specdec.demo.runner import ORDER

    names = [name.strip() for name in runs.split(",") if name.strip()]
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise SpecdecError(
            f"Unknown run {(unknown or [runs])[0]!r}: --runs takes {', '.join(KINDS)}, separated by commas."
        )
    return tuple(kind for kind in ORDER if kind in names)


def _check_writable(output: Path) -> None:
    """Ten minutes of measuring must not end in a folder that cannot be written."""
    try:
        make_writable(output)
    except OSError as error:
        raise SpecdecError(
            f"Cannot write to the folder {str(output)!r} ({error.strerror}): choose another --output."
        ) from None
