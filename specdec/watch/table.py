"""Figures as a table in the terminal: what happened lately beside what happened since the server began ("ever")."""

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specdec.watch.figures import PHASES, Figures, Position, State

NOTHING = "–"
BAR = 10  # columns: the table fits a terminal of 80
NO_POSITION = Position(None, None, None)


def render(lately: Figures, ever: Figures, now: State, seconds: float, note: str = "") -> RenderableType:
    """seconds: what `lately` covers. note: a line below, for what is wrong."""
    parts: list[RenderableType] = [_positions(lately, ever, seconds), _figures(lately, ever, now, seconds)]
    if not ever.positions:
        parts.insert(0, Text("  No drafts yet: send the server a request.", style="yellow"))
        parts.pop(1)
    if note:
        parts.append(Text(f"  {note}", style="red"))
    return Group(*parts)


def _positions(lately: Figures, ever: Figures, seconds: float) -> Table:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title="Acceptance of the drafts that were reached", title_justify="left"
    )
    table.add_column("position", no_wrap=True)
    for heading in ("observed", "expected"):
        table.add_column(f"{heading}\nlast {seconds:.0f} s", justify="right", no_wrap=True)
    table.add_column("", width=BAR)
    for heading in ("observed", "expected", "exact"):
        table.add_column(f"{heading}\never", justify="right", no_wrap=True)
    for position, of_all in ever.positions.items():
        recent = lately.positions.get(position, NO_POSITION)
        shown = recent.observed if recent.observed is not None else of_all.observed
        table.add_row(
            position,
            _share(recent.observed),
            _share(recent.expected),
            Bar(1.0, 0.0, shown or 0.0, width=BAR, color="green"),
            _share(of_all.observed),
            _share(of_all.expected),
            _share(of_all.exact),
        )
    return table


def _figures(lately: Figures, ever: Figures, now: State, seconds: float) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("now", f"last {seconds:.0f} s", "ever"):
        table.add_column(heading, justify="right")
    table.add_row("acceptance length, tokens per step", "", _number(lately.length), _number(ever.length))
    table.add_row("output tokens/s", "", _whole(lately.tokens_per_second), "")
    table.add_row("requests running", _whole(now.running), "", "")
    table.add_row("requests waiting", _whole(now.waiting), "", "")
    table.add_row("drafts per step", _whole(now.drafts), "", "")
    table.add_row("steps without drafts", "", _percent(lately.undrafted), _percent(ever.undrafted))
    table.add_row("lost draft rows", "", _percent(lately.lost), _percent(ever.lost))
    table.add_row("entropy of the target, nats", "", _number(lately.entropy), _number(ever.entropy))
    for phase in PHASES:
        table.add_row(f"time of a step: {phase}", "", _seconds(lately.phases[phase]), _seconds(ever.phases[phase]))
    table.add_row("memory for draft rows", f"{now.rows / 2**20:.1f} MiB", "", "")
    table.add_row("steering programs", _whole(now.programs), "", "")
    return table


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{1000 * value:.2f} ms"
