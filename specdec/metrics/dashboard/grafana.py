"""The dashboard as the JSON that Grafana (10 and later) imports, and its provisioning reads."""

from typing import Any

from specdec.metrics.dashboard.base import Panel, Query, Row
from specdec.metrics.dashboard.rows import ROWS

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """The whole of it. Its uid stays the same, so that importing a newer one replaces the older."""
    return {
        "uid": "specdec",
        "title": "specdec: speculative decoding",
        "description": "Acceptance of drafts, observed beside expected, and what speculation costs and gains.",
        "tags": ["specdec", "vllm"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts()]},
        "panels": _placed(ROWS),
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    return [
        source,
        _variable("model_name", "Model", "label_values(specdec_verify_steps_total, model_name)"),
        _variable("head", "Head", 'label_values(specdec_verify_steps_total{model_name=~"$model_name"}, head)'),
        _variable(
            "tenant",
            "Tenant",
            'label_values(specdec_verify_steps_total{model_name=~"$model_name",head=~"$head"}, tenant)',
        ),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    """Several values may be chosen. All is ".*", which an absent label (no tenant named) matches too."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
    }


def _alerts() -> dict[str, Any]:
    """Our alerts as marks on the time axis."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Specdec.*",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{model_name}} {{head}} {{position}}",
    }


def _placed(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Panels from left to right, a new line where the next one would not fit."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        found.append(_panel_base(len(found) + 1, "row", row.title, 0, y, COLUMNS, 1) | {"collapsed": False})
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            found.append(_panel(panel, len(found) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found


def _panel_base(number: int, kind: str, title: str, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number, "type": kind, "title": title, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 2,
            "fillOpacity": 25 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    dashed = [_dashed(place) for place, query in enumerate(panel.queries) if query.dashed]
    return _panel_base(number, panel.kind, panel.title, x, y, panel.width, panel.height) | {
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(query, panel, place) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": dashed},
        "options": OPTIONS[panel.kind],
    }


def _target(query: Query, panel: Panel, place: int) -> dict[str, Any]:
    now = panel.kind == "bargauge"  # the last value alone
    return {
        "refId": chr(ord("A") + place),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": not now,
        "instant": now,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
    }


def _dashed(place: int) -> dict[str, Any]:
    """What is expected looks otherwise than what is."""
    return {
        "matcher": {"id": "byFrameRefID", "options": chr(ord("A") + place)},
        "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}],
    }


LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    },
    "stat": {"reduceOptions": LAST, "graphMode": "area", "colorMode": "value", "textMode": "value"},
    "bargauge": {"reduceOptions": LAST, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": True},
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "yAxis": {"axisPlacement": "left", "unit": "short"},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
    },
}
