"""The demo's one table, from the content of report.json; the terminal and the HTML page show the same cells."""

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from specdec.demo.report import TITLES

HEADINGS = (
    "run",
    "at\nonce",
    "tokens/s",
    "eager /\ncompiled",
    "against\nnone",
    "first token\nms",
    "acceptance\nlength",
    "accepted\nby position",
    "expected\n/ observed",
)


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def shares(values: list[float] | None) -> str:
    return "–" if not values else " ".join(f"{v:.2f}" for v in values)


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per kind of run and concurrency, as text."""
    found: list[tuple[str, ...]] = []
    for kind, loads in report["runs"].items():
        for concurrency, s in loads.items():
            both = f"{number(s['tokens_per_second_eager'], 0)} / {number(s['tokens_per_second_compiled'], 0)}"
            gain = report["speedup"].get(kind, {}).get(concurrency)
            found.append(
                (
                    TITLES[kind],
                    concurrency,
                    number(s["tokens_per_second"]),
                    both,
                    "–" if gain is None else f"{gain:.2f}×",
                    number(s["time_to_first_token"]),
                    number(s["acceptance_length"], 2),
                    shares(s["accepted_per_position"]),
                    f"{shares(s['expected_acceptance_per_position'])}\n{shares(s['observed_acceptance_per_position'])}",
                )
            )
    return found


def terminal_table(report: dict[str, Any]) -> Table:
    table = Table(
        title="Output tokens per second with and without speculation", title_justify="left", box=SIMPLE, padding=(0, 1)
    )
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i == 0 else "right", max_width=26 if i == 0 else None)
    previous = ""
    for row in rows(report):
        if previous and row[0] != previous:
            table.add_section()
        style = "bold" if row[0] == TITLES["specdec"] else "dim" if row[0] == TITLES["stock"] else None
        table.add_row("" if row[0] == previous else row[0], *row[1:], style=style)
        previous = row[0]
    return table
