"""The tables of a report, as text: the terminal and the HTML page show the same cells."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.table import Table

from specdec.evaluation.entropy import Curve

SHOWN = Curve("rejection", "length", "temperature_1"), Curve("target_only", "length", "temperature_1")


class Sheet(NamedTuple):
    """A table: name, what it shows in one sentence, headings, cells. The first `left` columns hold words."""

    name: str
    about: str
    headings: list[str]
    rows: list[list[str]]
    left: int = 2

    def for_terminal(self) -> Table:
        """The same as a rich table."""
        table = Table(title=self.name, title_justify="left", box=SIMPLE, padding=(0, 1))
        for i, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if i < self.left else "right")
        for row in self.rows:
            table.add_row(*row)
        return table


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """Those that this report has figures for."""
    return [s for s in (_along_text(report), _served(report), _entropy(report), _sources(report)) if s.rows]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last parts, as many as tell all of them apart."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(set(paths)):
            break
    return dict(zip(paths, names, strict=True))


def _named(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    names = short_names(report["heads"])
    return ((names[row["head"]], row) for row in report["results"])


def _along_text(report: dict[str, Any]) -> Sheet:
    steps = [f"step {k}" for k in range(1, report["options"]["num_steps_ahead"] + 1)]
    rows = [
        [
            name, row["setting"], *(f"{a:.4f}" for a in row["alpha"]), f"{row['length']:.4f}",
            f"{row['greedy_length']:.4f}", f"{row['anchors']:,}",
        ]
        for name, row in _named(report)
    ]  # fmt: skip
    about = (
        "At every position of the held-out text, whose own tokens the chain follows: acceptance of a sampled draft, "
        "sum(min(p, q)); tokens per step; the same with greedy drafts (target-only)."
    )
    return Sheet("held-out acceptance", about, ["head", "setting", *steps, "length", "target-only", "anchors"], rows)


def _served(report: dict[str, Any]) -> Sheet:
    rows, measured = [], any("measured" in row for row in report["results"])
    for name, row in _named(report):
        if "predicted" in row:
            cells = [_with_error(row["predicted"]), _with_error(row["predicted_greedy"])]
            if measured:
                difference = row["measured"]["length"] / row["predicted"]["length"] - 1
                cells[1:1] = [_with_error(row["measured"]), f"{100 * difference:+.1f} %"]
            rows.append([name, row["setting"], *cells])
    about = (
        "Tokens per step in serving, where the model writes its own text and each step begins where the last one "
        f"ended: predicted from text that the target sampled{', and measured in the engine' if measured else ''}. "
        "±: 95 %. Target-only: with greedy drafts."
    )
    headings = ["head", "setting", "predicted", *(["measured", "difference"] if measured else []), "target-only"]
    return Sheet("acceptance length in serving", about, headings, rows)


def _with_error(figure: dict[str, Any]) -> str:
    return f"{figure['length']:.3f} ±{figure['error']:.3f}"


def _entropy(report: dict[str, Any]) -> Sheet:
    against = {
        (d["head"], d["setting"]): d
        for d in report["slope_differences"]
        if Curve(d["verify"], d["of"], d["entropy"]) == SHOWN[0]
    }
    rows = []
    for name, row in _named(report):
        fits = {Curve(f["verify"], f["of"], f["entropy"]): f for f in row["entropy"]}
        difference = against.get((row["head"], row["setting"]))
        cells = [interval(fits[curve], "slope") for curve in SHOWN]
        rows.append([name, row["setting"], *cells, interval(difference, "difference") if difference else "–"])
    about = (
        "Slope of the expected tokens per step against the mean entropy of the target at temperature 1 over the "
        "chain's positions, per nat, with its 95 % interval over documents."
    )
    headings = ["head", "setting", "rejection sampling", "target-only", "against the first head"]
    return Sheet("acceptance length against entropy", about, headings, rows)


def interval(found: dict[str, Any], key: str) -> str:
    """The value and its 95 % interval: -0.309 [-0.342, -0.272]; a dash where there is none."""
    if found[key] is None:
        return "–"
    interval = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found[key]:+.3f}{interval}"


def _sources(report: dict[str, Any]) -> Sheet:
    """One line for each source and setting, heads side by side; none where there is but one source."""
    names = short_names(report["heads"])
    by_setting: dict[str, dict[str, dict[str, Any]]] = {}
    for row in report["results"]:
        by_setting.setdefault(row["setting"], {})[row["head"]] = row["by_source"]
    rows = [
        [source, setting, f"{of_heads[report['heads'][0]][source]['anchors']:,}"]
        + [f"{of_heads[head][source]['length']:.4f}" for head in names]
        for setting, of_heads in by_setting.items()
        for source in of_heads[report["heads"][0]]
        if len(of_heads[report["heads"][0]]) > 1
    ]
    about = "Tokens per step under rejection sampling along the held-out text, by file, or by what --by names."
    return Sheet("acceptance length by source", about, ["source", "setting", "anchors", *names.values()], rows)
