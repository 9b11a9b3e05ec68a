"""`specdec conformance`: the known bugs of verify steps, as tests of every implementation that is there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from specdec.errors import SpecdecError

if TYPE_CHECKING:
    from specdec.conformance.table import Judged


def conformance(
    implementation: Annotated[
        list[str] | None,
        typer.Option(
            help="What to test; package.module:factory for one of your own. Repeatable; default: all but slow ones."
        ),
    ] = None,
    check: Annotated[list[str] | None, typer.Option(help="Which check. Repeatable; default: all.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Name implementations and checks, and stop.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file as well.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one check may take.")] = 900.0,
    at_once: Annotated[int, typer.Option(help="Implementations tested side by side; 0: one per core.")] = 0,
) -> None:
    """Test verify steps against the known bugs of others: ours, vLLM's, SGLang's, FlashInfer's, or your own.

    Each implementation runs in a process of its own. Failures that are known are listed below the table with their
    reasons. Ends with status 1 if anything failed that is not known to.

    Examples:

        specdec conformance

        specdec conformance --list

        specdec conformance --implementation cpu --implementation vllm-v1 --check seeds

        specdec conformance --implementation my_package.sampler:Mine --json results.json

    How to write an implementation of your own: pydoc specdec.conformance.base
    """
    from specdec.conformance.checks import CHECKS
    from specdec.conformance.registry import source, sources

    console = Console(highlight=False)
    if list_all:
        _list(console)
        return
    names = implementation or [name for name, where in sources().items() if where.by_default]
    checks = check or list(CHECKS)
    for name in checks:
        if name not in CHECKS:
            raise SpecdecError(f"Unknown check {name!r}: use one of {', '.join(CHECKS)}.")
    for name in names:
        source(name)
    judged, absent = _run(console, names, checks, timeout, at_once)
    if implementation and set(absent) == set(names):
        raise SpecdecError("; ".join(f"cannot test {name}: {why}" for name, why in absent.items()))
    _print(console, judged, absent)
    if json_file is not None:
        _write(json_file, judged, absent)
    if any(one.verdict == "failed" for one in judged):
        raise typer.Exit(1)


def _list(console: Console) -> None:
    from specdec.conformance.checks import CHECKS
    from specdec.conformance.registry import sources

    console.print("[bold]Implementations[/]")
    for name, where in sources().items():
        why = where.absent()
        console.print(f"  {name:16} {where.version() or '':12} {'' if why is None else f'not here: {why}'}".rstrip())
    console.print("\n[bold]Checks[/]")
    for one in CHECKS.values():
        console.print(f"  {one.name:18} bug {one.bug:>2}  {one.summary}", markup=False)


def _run(
    console: Console, names: list[str], checks: list[str], timeout: float, at_once: int
) -> "tuple[list[Judged], dict[str, str]]":
    import os
    from concurrent.futures import ThreadPoolExecutor

    from specdec.conformance.expected import known
    from specdec.conformance.processes import Absent, run_implementation
    from specdec.conformance.registry import source
    from specdec.conformance.run import Result
    from specdec.conformance.table import Judged

    absent = {name: why for name in names if (why := source(name).absent()) is not None}
    left = [name for name in names if name not in absent]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        tasks = {name: progress.add_task(name, total=len(checks)) for name in left}

        def test(name: str) -> list[Result]:
            try:
                return run_implementation(name, checks, timeout, lambda result: progress.advance(tasks[name]))
            except Absent as why:
                absent[name] = str(why)
                return []

        with ThreadPoolExecutor(at_once or len(os.sched_getaffinity(0))) as pool:
            results = [one for found in pool.map(test, left) for one in found]
    versions = {name: source(name).version() for name in left}
    judged = [Judged(one, known(one.implementation, one.check, versions[one.implementation])) for one in results]
    return judged, absent


def _print(console: Console, judged: "list[Judged]", absent: dict[str, str]) -> None:
    from specdec.conformance.table import render

    console.print(render(judged, absent))
    counts: dict[str, int] = {}
    for one in judged:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    console.print("\n" + ", ".join(f"{n} {'not applicable' if v == '–' else v}" for v, n in counts.items()))


def _write(path: Path, judged: "list[Judged]", absent: dict[str, str]) -> None:
    from specdec.demo.report import write_atomically
    from specdec.provenance import provenance

    content = {
        "results": [{**one.result.as_dict(), "verdict": one.verdict, "known": one.reason} for one in judged],
        "absent": absent,
        "provenance": provenance(),
    }
    try:
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise SpecdecError(f"cannot write {path} ({error.strerror}): choose another --json file") from None
