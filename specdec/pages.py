"""Self-contained HTML pages of results: nothing in them is loaded from elsewhere."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #1c2026; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: .35em .6em; border-bottom: 1px solid #d8dce2; }
th, td { text-align: right; white-space: pre-line; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f4f5f7; padding: .7em; overflow-x: auto; font-size: 12px; white-space: pre-wrap; }
svg { max-width: 100%; height: auto; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole document. body: HTML; style: CSS on top of the common one."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>
<h1>{escape(title)}</h1>
{body}
</body></html>
"""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Cells are plain text; classes: of the rows, where they have any."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    of_rows = [f' class="{escape(name)}"' for name in classes] or [""] * len(rows)
    body = "".join(
        f"<tr{attribute}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for attribute, row in zip(of_rows, rows, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def svg(figure: Any) -> str:
    """A matplotlib figure as an inline SVG element."""
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    text = out.getvalue()
    return text[text.index("<svg") :]


def facts(values: Mapping[str, Any]) -> str:
    """name value, name value: those that are no mappings of their own, and known."""
    return ", ".join(
        f"{escape(str(k))} {escape(str(v))}" for k, v in values.items() if not isinstance(v, dict) and v is not None
    )
