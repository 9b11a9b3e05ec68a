"""The dashboard's JSON: whole, laid out without overlaps, and about metrics that there are. Its queries are asked of a
real Prometheus in tests/engines/vllm/test_observed.py."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from specdec.metrics.counters import StepCounters
from specdec.metrics.dashboard import write_files
from specdec.metrics.export import SpecdecCollector
from tests.helpers.traffic import record_steps


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path, _ = write_files(tmp_path_factory.mktemp("board"), "5m", "1d")
    return dict(json.loads(path.read_text()))


def exprs(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_panels_do_not_overlap_and_stay_within_the_columns(board: dict[str, Any]) -> None:
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_every_panel_says_what_it_means(board: dict[str, Any]) -> None:
    assert all(panel["description"] for panel in board["panels"] if panel["type"] != "row")


def test_every_metric_of_ours_is_shown_and_none_is_made_up(board: dict[str, Any], tmp_path: Path) -> None:
    counters = StepCounters(tmp_path, {"model_name": "m"})
    record_steps(counters, 50, np.random.default_rng(0))
    registry = CollectorRegistry()
    registry.register(SpecdecCollector(tmp_path))
    exported = {family.name for family in registry.collect()}
    shown = set(re.findall(r"\bspecdec_\w+", " ".join(exprs(board))))
    assert {re.sub(r"_(total|sum|count|bucket)$", "", name) for name in shown} == exported


def test_queries_ask_for_what_the_variables_choose(board: dict[str, Any]) -> None:
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert names == {"datasource", "model_name", "head", "tenant"}
    for expr in exprs(board):
        assert 'model_name=~"$model_name"' in expr
        assert set(re.findall(r"\$(\w+)", expr)) <= names | {"__rate_interval"}
    # What belongs to a worker would vanish if a tenant were asked for.
    for expr in exprs(board):
        if re.search("phase_seconds|draft_rows_bytes|steering_programs|drafts_per_step|vllm:", expr):
            assert "$tenant" not in expr.split(" / ")[0]
