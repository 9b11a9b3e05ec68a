"""report.html: one self-contained page with the table, two plots and the commands."""

from html import escape
from typing import Any

from specdec.demo.report import TITLES
from specdec.demo.table import HEADINGS, rows
from specdec.pages import facts, page, svg, table

COLOURS = {"none": "#8a8f98", "greedy": "#5b9bd5", "specdec": "#1a7f4e", "block": "#7a5ba8", "stock": "#d9a05b"}
STYLE = "tr.specdec { font-weight: 600; } tr.stock { color: #8a6a3a; }"


def speed_plot(report: dict[str, Any]) -> str:
    """Bars: tokens/s by concurrency, one bar per kind of run (faster configuration)."""
    from matplotlib.figure import Figure

    concurrencies = sorted({c for loads in report["runs"].values() for c in loads}, key=int)
    figure = Figure(figsize=(9, 3.2))
    for axes, concurrency in zip(figure.subplots(1, len(concurrencies), squeeze=False)[0], concurrencies, strict=True):
        kinds = [k for k, loads in report["runs"].items() if concurrency in loads]
        bars = axes.bar(
            kinds,
            [report["runs"][k][concurrency]["tokens_per_second"] for k in kinds],
            color=[COLOURS[k] for k in kinds],
            hatch=["//" if k == "stock" else "" for k in kinds],
        )
        axes.bar_label(bars, fmt="%.0f")
        axes.margins(y=0.15)
        axes.set_title(f"{concurrency} request{'s' if concurrency != '1' else ''} at a time", fontsize=10)
        axes.set_ylabel("output tokens/s")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return svg(figure)


def acceptance_plot(report: dict[str, Any]) -> str:
    """Bars by draft position: expected (mean min(1, p/q)) beside observed acceptance of reached drafts."""
    from matplotlib.figure import Figure

    loads = {
        (kind, c): s
        for kind, runs in report["runs"].items()
        for c, s in runs.items()
        if s["expected_acceptance_per_position"] and s["observed_acceptance_per_position"]
    }
    if not loads:
        return ""
    figure = Figure(figsize=(9, 3.0))
    panels = figure.subplots(1, len(loads), squeeze=False, sharey=True)[0]
    for axes, ((kind, concurrency), s) in zip(panels, loads.items(), strict=True):
        expected, observed = s["expected_acceptance_per_position"], s["observed_acceptance_per_position"]
        axes.bar([i - 0.2 for i in range(1, len(expected) + 1)], expected, 0.38, label="expected", color="#c5ccd6")
        axes.bar([i + 0.2 for i in range(1, len(observed) + 1)], observed, 0.38, label="observed", color=COLOURS[kind])
        axes.set_title(f"{kind}, {concurrency} at a time", fontsize=9)
        axes.set_xticks(range(1, len(expected) + 1))
        axes.set_xlabel("draft position")
        axes.set_ylim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("acceptance of reached drafts")
    panels[-1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    return svg(figure)


def _table(report: dict[str, Any]) -> str:
    kind_of = {title: kind for kind, title in TITLES.items()}
    cells = rows(report)
    return table(HEADINGS, cells, [kind_of[row[0]] for row in cells])


def _commands(report: dict[str, Any]) -> str:
    return "".join(
        f"<h3>{escape(TITLES[kind])}</h3><pre>{escape(next(iter(loads.values()))['command'])}</pre>"
        for kind, loads in report["runs"].items()
    )


def _load(settings: dict[str, Any]) -> str:
    """One sentence on what was served and sent."""
    return escape(
        f"{settings['model']} with {settings['head']}: {settings['requests']} streaming requests of "
        f"{settings['output_tokens']} output tokens at temperature {settings['temperature']:g}, "
        f"{settings['num_drafts']} drafts a step; prompts cut from files that the model never saw."
    )


def _prompts(settings: dict[str, Any]) -> str:
    sources = ", ".join(escape(source) for source in settings.get("prompts", ()))
    return f"<details><summary>The prompts: file and first line</summary><p>{sources}</p></details>" if sources else ""


def _explanation(report: dict[str, Any]) -> str:
    return f"""<p>Each run in its faster configuration (eager or compiled). Acceptance length: tokens per step and
request, 1 without speculation. Expected: mean of min(1, p/q) over the drafts that were reached; observed: the share of
them that was accepted. In a lossless verify step the two agree up to noise.
Stock: {escape(report["notes"]["stock"])}; its output is not the model's.</p>"""


def html_page(report: dict[str, Any]) -> str:
    """The whole page; nothing in it is loaded from elsewhere."""
    gain = report["speedup"].get("specdec", {}).get("1")
    lead = "" if gain is None else f"<p><b>{gain:.2f}× the tokens/s without speculation, one request at a time.</b></p>"
    provenance = report["provenance"]
    body = f"""{lead}
<p>{_load(report["settings"])}</p>
{_table(report)}
{_explanation(report)}
<h2>Tokens per second</h2>
{speed_plot(report)}
<h2>Acceptance by draft position</h2>
{acceptance_plot(report) or "<p>No figures of specdec's verify step in these runs.</p>"}
<h2>Commands that started the servers</h2>
{_commands(report)}
{_prompts(report["settings"])}
<h2>Where this was measured</h2>
<p>{facts(provenance)}</p>
<p>{facts(provenance.get("versions", {}))}</p>"""
    return page("specdec demo", body, STYLE)
