"""`specdec bench`: name or run the benchmark scripts of a checkout."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from specdec.errors import SpecdecError


def bench(
    name: Annotated[str, typer.Argument(help="Benchmark to run, by file name without .py; none: list them.")] = "",
    script_args: Annotated[
        list[str] | None, typer.Argument(help="Behind `--`: arguments of the benchmark.", metavar="-- SCRIPT_ARGS")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the scripts are.")] = Path("bench"),
) -> None:
    """List the benchmarks of a checkout, or run one.

    Each first checks that what it compares gives equal results, then times it beside its baseline, and writes a JSON
    with versions and machine to bench/results.

    Examples:

        specdec bench

        specdec bench verify

        specdec bench verify -- --seconds 5
    """
    scripts = {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}
    if not scripts:
        raise SpecdecError(
            f"The folder {str(folder)!r} holds no benchmarks: run this in a checkout of specdec, or give --folder."
        )
    if not name:
        for stem, path in scripts.items():
            typer.echo(f"{stem:12} {question(path)}")
        return
    if name not in scripts:
        raise SpecdecError(f"Unknown benchmark {name!r}: there are {', '.join(scripts)}.")
    typer.echo(f"==> {scripts[name]}: {question(scripts[name])}")
    status = subprocess.run([sys.executable, str(scripts[name]), *(script_args or ())]).returncode
    if status != 0:
        raise SpecdecError(f"Benchmark {name!r} failed with status {status}: its own output above says why.")


def question(script: Path) -> str:
    """The first line of a script's docstring: what it asks."""
    return (ast.get_docstring(ast.parse(script.read_text("utf-8"))) or "").partition("\n")[0]
