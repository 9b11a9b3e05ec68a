"""Results as a table: checks down, implementations across; what is behind the marks below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from specdec.conformance.checks import CHECKS
from specdec.conformance.run import Result

PASSED, FAILED, KNOWN, FIXED, NOT_APPLICABLE = "passed", "failed", "known", "fixed?", "–"
STYLES = {PASSED: "green", FAILED: "bold red", KNOWN: "yellow", FIXED: "bold cyan", NOT_APPLICABLE: "dim"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A result beside what is known of it. reason: why a failure is expected, or None."""

    result: Result
    reason: str | None

    @property
    def verdict(self) -> str:
        if self.result.state == "not applicable":
            return NOT_APPLICABLE
        if self.result.state == "passed":
            return PASSED if self.reason is None else FIXED
        return FAILED if self.reason is None else KNOWN


def render(judged: Sequence[Judged], absent: Mapping[str, str]) -> RenderableType:
    """The table, and a legend: failures, known failures with their reasons, what does not apply, what is not there."""
    names = list(dict.fromkeys(one.result.implementation for one in judged))
    checks = [name for name in CHECKS if any(one.result.check == name for one in judged)]
    by_place = {(one.result.check, one.result.implementation): one for one in judged}
    table = Table("bug", "check", *names, box=SIMPLE, padding=(0, 1))
    for check in checks:
        cells = [by_place.get((check, name)) for name in names]
        marks = [Text("") if one is None else Text(one.verdict, STYLES[one.verdict]) for one in cells]
        table.add_row(CHECKS[check].bug, check, *marks)
    return Group(table, *(Text.from_markup(line) for line in legend(judged, absent)))


def legend(judged: Sequence[Judged], absent: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for title, verdict in (("Failed", FAILED), ("Fixed? Known to fail, and passed", FIXED), ("Known failures", KNOWN)):
        some = [one for one in judged if one.verdict == verdict]
        if some:
            lines += [f"\n[bold]{title}[/]", *(_line(one) for one in some)]
    reasons: dict[str, list[str]] = {}
    for one in judged:
        if one.verdict == NOT_APPLICABLE:
            where = f"{one.result.implementation} ({one.result.check})"
            reasons.setdefault(one.result.detail, []).append(where)
    if reasons:
        lines += ["\n[bold]Not applicable[/]"]
        lines += [f"  {', '.join(where)}: {escape(reason)}" for reason, where in reasons.items()]
    if absent:
        lines += ["\n[bold]Not tested here[/]", *(f"  {name}: {escape(why)}" for name, why in absent.items())]
    return lines


def _line(one: Judged) -> str:
    style = STYLES[one.verdict]
    reason = "" if one.reason is None else f"{one.reason}. Seen: "
    head = f"[{style}]{one.result.implementation}[/], {one.result.check}"
    return f"  {head}: {escape(reason + one.result.detail)}"
