"""A report on disk: results.json, a PNG of each plot, and report.html with all of it on one page."""

import io
import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from specdec import pages
from specdec.evaluation.plots import PLOTS
from specdec.evaluation.sheets import Sheet, sheets, short_names
from specdec.files import replace_file

RESULTS = "results.json"
HEADINGS = {
    "positions": "Acceptance by draft position",
    "lengths": "Acceptance length by setting",
    "entropy": "Acceptance length against the target's entropy",
}


def write_report(folder: Path, report: dict[str, Any]) -> list[Path]:
    """Writes the files, each whole or not at all, and returns their paths. OSError: the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {name: draw(report) for name, draw in PLOTS.items()}
    files = {RESULTS: as_json(report), "report.html": html_page(report, figures).encode()}
    files |= {f"{name}.png": _png(figure) for name, figure in figures.items()}
    for name, content in files.items():
        replace_file(folder / name, content)
    return [folder / name for name in files]


def as_json(report: dict[str, Any]) -> bytes:
    """NaN, where there was nothing to measure, as null."""
    return (json.dumps(_without_nan(report), indent=2) + "\n").encode()


def html_page(report: dict[str, Any], figures: dict[str, Any]) -> str:
    """The whole page; figures by the names in PLOTS."""
    parts = [_lead(report), *(_sheet(sheet) for sheet in sheets(report))]
    parts += [f"<h2>{HEADINGS[name]}</h2>\n{pages.svg(figure)}" for name, figure in figures.items()]
    parts.append(_how(report))
    return pages.page("specdec eval", "\n".join(parts))


def _lead(report: dict[str, Any]) -> str:
    heads = "".join(
        f"<li><b>{escape(name)}</b> {escape(path)}</li>" for path, name in short_names(report["heads"]).items()
    )
    data = ", ".join(escape(path) for path in report["data"])
    return f"<p>Heads for {escape(report['model'])}, on {data}:</p><ul>{heads}</ul>"


def _sheet(sheet: Sheet) -> str:
    name = sheet.name[0].upper() + sheet.name[1:]
    return f"<h2>{escape(name)}</h2><p>{escape(sheet.about)}</p>{pages.table(sheet.headings, sheet.rows)}"


def _how(report: dict[str, Any]) -> str:
    provenance = report["provenance"]
    return f"""<h2>How this was measured</h2>
<pre>{escape(shlex.join(report["command"]))}</pre>
<p>{pages.facts(report["options"])}</p>
<p>{pages.facts(provenance)}</p>
<p>{pages.facts(provenance.get("versions", {}))}</p>"""


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value
