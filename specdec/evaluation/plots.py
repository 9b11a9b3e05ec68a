"""The three plots of a report. Each function takes its content and returns a matplotlib figure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specdec.evaluation.entropy import Curve, Fit
from specdec.evaluation.sheets import SHOWN, short_names

COLOURS = ("#1a7f4e", "#5b6fd5", "#d9822b", "#a83279", "#2a9fb0", "#8a6a3a", "#6b7280", "#c0392b")
COLUMNS = 3  # panels in a row
HEADS_IN_LINE = 4  # of the legend


def colours(report: dict[str, Any]) -> dict[str, str]:
    """Of each head."""
    return {head: COLOURS[i % len(COLOURS)] for i, head in enumerate(report["heads"])}


def positions(report: dict[str, Any]) -> Figure:
    """Bars: acceptance of a sampled draft by position and head, a panel for each setting; lines: of a greedy draft."""
    names, colour = short_names(report["heads"]), colours(report)
    figure = Figure()
    for axes, rows in _panels(report, figure, "acceptance along held-out text"):
        width = 0.8 / len(rows)
        for i, row in enumerate(rows):
            x = np.arange(len(row["alpha"])) + 1 + (i - (len(rows) - 1) / 2) * width
            axes.bar(x, row["alpha"], width * 0.92, color=colour[row["head"]], label=names[row["head"]])
            axes.hlines(row["greedy_alpha"], x - width / 2, x + width / 2, color="#1c2026", linewidth=1.5)
        axes.set_xticks(range(1, len(rows[0]["alpha"]) + 1))
        axes.set_xlabel("draft position")
        axes.set_ylim(0, 1)
    _legend(figure, report, [_mark("target-only", linewidth=1.5)])
    return figure


def lengths(report: dict[str, Any]) -> Figure:
    """Tokens per step by setting: along held-out text, predicted for serving, measured."""
    figure = Figure(figsize=(max(6.0, 1.2 * len(report["settings"]) + 3), 3.8))
    axes, colour, settings = figure.subplots(), colours(report), report["settings"]
    for number, head in enumerate(report["heads"]):
        rows = [row for row in report["results"] if row["head"] == head]
        x = np.arange(len(rows)) + 0.06 * (number - (len(report["heads"]) - 1) / 2)
        axes.plot(x, [row["length"] for row in rows], ":", marker=".", color=colour[head], alpha=0.7)
        for key, aside, style in (("predicted", 0, {"fmt": "-o"}), ("measured", 0.03, {"fmt": "x", "markersize": 9})):
            some = [(place + aside, row[key]) for place, row in zip(x, rows, strict=True) if key in row]
            if some:
                axes.errorbar(
                    [place for place, _ in some], [f["length"] for _, f in some], [f["error"] for _, f in some],
                    color=colour[head], markerfacecolor="white", capsize=2, **style,
                )  # fmt: skip
    axes.set_xticks(range(len(settings)), [s.replace(",", "\n") for s in settings])
    axes.set_ylabel("tokens per step")
    _plain(axes)
    kinds = {
        "length": _mark("along held-out text", linestyle=":", marker="."),
        "predicted": _mark("predicted for serving", linestyle="-", marker="o", markerfacecolor="white"),
        "measured": _mark("measured in the engine", linestyle="", marker="x", markersize=9),
    }
    _legend(figure, report, [mark for key, mark in kinds.items() if any(key in row for row in report["results"])])
    return figure


def entropy(report: dict[str, Any]) -> Figure:
    """Dots: means of bins; lines: least squares. Filled and solid under rejection sampling, else target-only."""
    figure, colour = Figure(), colours(report)
    for axes, rows in _panels(report, figure, "expected tokens per step"):
        for row in rows:
            fits = {Curve(f["verify"], f["of"], f["entropy"]): Fit.of(f) for f in row["entropy"]}
            for curve, filled in zip(SHOWN, (True, False), strict=True):
                _draw_fit(axes, fits[curve], colour[row["head"]], filled)
        axes.set_xlabel("entropy of the target at T=1, nats")
    kinds = [
        _mark("rejection sampling", linestyle="-", marker="o"),
        _mark("target-only", linestyle="--", marker="o", markerfacecolor="white"),
    ]
    _legend(figure, report, kinds)
    return figure


PLOTS = {"positions": positions, "lengths": lengths, "entropy": entropy}


def _draw_fit(axes: Axes, fit: Fit, colour: str, filled: bool) -> None:
    x = np.array([b["entropy"] for b in fit.bins])
    y = [b["value"] for b in fit.bins]
    axes.plot(x, y, "o", markersize=4, color=colour, markerfacecolor=colour if filled else "white")
    if fit.slope is not None:
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, fit.at(ends), "-" if filled else "--", color=colour, linewidth=1.2)


def _panels(report: dict[str, Any], figure: Figure, value: str) -> Iterator[tuple[Axes, list[dict[str, Any]]]]:
    """An axes for each setting, with the setting's results by head. value: what stands on the vertical axis."""
    settings = report["settings"]
    columns = min(COLUMNS, len(settings))
    lines = -(-len(settings) // columns)
    figure.set_size_inches(max(5.5, 3.6 * columns), 3.1 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, setting in zip(panels, settings, strict=False):
        yield axes, [row for row in report["results"] if row["setting"] == setting]
        axes.set_title(setting, fontsize=10)
        _plain(axes)
    for axes in panels[len(settings) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(value)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _mark(label: str, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], **{"color": "#1c2026", "label": label, **style})


def _legend(figure: Figure, report: dict[str, Any], kinds: list[Line2D]) -> None:
    """Above the panels: what the marks mean, and heads by colour."""
    names, colour = short_names(report["heads"]), colours(report)
    heads = [_mark(names[h], color=colour[h], linewidth=5) for h in report["heads"]]
    line = 0.26 / figure.get_figheight()  # of text, as a share of the height
    lines = 1 + -(-len(heads) // HEADS_IN_LINE)
    figure.tight_layout(rect=(0, 0, 1, 1 - (lines + 0.3) * line))
    style: dict[str, Any] = {"loc": "upper center", "fontsize": 9, "frameon": False, "borderaxespad": 0.2}
    figure.legend(handles=kinds, ncols=len(kinds), bbox_to_anchor=(0.5, 1), **style)
    figure.legend(handles=heads, ncols=min(HEADS_IN_LINE, len(heads)), bbox_to_anchor=(0.5, 1 - line), **style)
