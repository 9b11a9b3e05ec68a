"""`specdec doctor`: a table of what is installed, what works, and what to do about the rest."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MARKS = {"ok": "[green]✓[/]", "absent": "[dim]–[/]", "broken": "[red]✗[/]"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Say what is installed, which verify backends work, and what is wrong.

    Ends with status 1 if something that is needed does not work.

    Examples:

        specdec doctor

        specdec doctor --json
    """
    from specdec.doctor import examine

    findings = examine()
    broken = [f for f in findings if f.state == "broken"]
    if as_json:
        typer.echo(json.dumps({"healthy": not broken, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        table = Table("", "what", "found", "what to do", box=SIMPLE)
        for f in findings:
            table.add_row(MARKS[f.state], f.name, escape(f.detail), escape(f.remedy))
        console = Console(highlight=False)
        console.print(table)
        console.print(f"[red]{len(broken)} broken[/]" if broken else "[green]all that is needed works[/]")
    if broken:
        raise typer.Exit(1)
