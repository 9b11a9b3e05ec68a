"""What the demo reports, from measurements made up so that every figure can be worked out by hand."""

import json
import re

import pytest

from specdec.demo.acceptance import NO_SPECULATION, Acceptance
from specdec.demo.page import html_page
from specdec.demo.report import Measurement, build_report, write_report
from specdec.demo.table import HEADINGS, rows, terminal_table

OURS = Acceptance(2.5, (0.8, 0.5, 0.2), (0.79, 0.63, 0.41), (0.8, 0.625, 0.4))
STOCK = Acceptance(1.4, (0.3, 0.1, 0.0))


def measurement(speed: float, acceptance: Acceptance, command: str) -> Measurement:
    return Measurement(speed, 1000 / speed, acceptance, command)


@pytest.fixture
def report():
    runs = {
        "none": {
            "eager": {c: measurement(100 * c, NO_SPECULATION, "none eager") for c in (1, 8)},
            "compiled": {c: measurement(200 * c, NO_SPECULATION, "none <compiled>") for c in (1, 8)},
        },
        "specdec": {
            "eager": {1: measurement(150, OURS, "ours eager"), 8: measurement(1700, OURS, "ours eager")},
            "compiled": {1: measurement(320, OURS, "ours compiled"), 8: measurement(1680, OURS, "ours compiled")},
        },
        "stock": {"compiled": {c: measurement(80 * c, STOCK, "stock") for c in (1, 8)}},
    }
    plan = {
        "model": "a <model>", "head": "a head", "requests": 32, "output_tokens": 96, "temperature": 1.0,
        "num_drafts": 3, "prompts": ["a.py:1", "b.py:22"],
    }  # fmt: skip
    return build_report(runs, plan, {"cpu": "a <CPU>", "versions": {"torch": "2"}})


def test_each_concurrency_is_of_its_own_faster_configuration(report):
    one, eight = report["runs"]["specdec"]["1"], report["runs"]["specdec"]["8"]
    assert (one["tokens_per_second"], one["faster"], one["command"]) == (320, "compiled", "ours compiled")
    assert (eight["tokens_per_second"], eight["faster"], eight["command"]) == (1700, "eager", "ours eager")
    assert (one["tokens_per_second_eager"], one["tokens_per_second_compiled"]) == (150, 320)
    assert one["time_to_first_token"] == pytest.approx(1000 / 320, abs=0.01)
    assert one["acceptance_length"] == 2.5 and one["accepted_per_position"] == [0.8, 0.5, 0.2]


def test_a_configuration_that_did_not_run_is_null(report):
    assert report["runs"]["stock"]["1"]["tokens_per_second_eager"] is None
    assert report["runs"]["stock"]["1"]["expected_acceptance_per_position"] is None


def test_without_speculation_every_step_yields_one_token(report):
    assert report["runs"]["none"]["1"]["acceptance_length"] == 1.0
    assert report["runs"]["none"]["1"]["accepted_per_position"] == []


def test_speedup_is_against_the_faster_run_without_speculation(report):
    assert report["speedup"] == {"specdec": {"1": 1.6, "8": 1.062}, "stock": {"1": 0.4, "8": 0.4}}


def test_speedup_needs_a_run_without_speculation(report):
    alone = build_report({"specdec": {"eager": {1: measurement(5, OURS, "x")}}}, report["settings"], {"cpu": "c"})
    assert alone["speedup"] == {"specdec": {}}
    assert html_page(alone)


def test_table_has_a_row_per_run_and_concurrency(report):
    assert len(rows(report)) == 6 and {len(row) for row in rows(report)} == {len(HEADINGS)}
    assert terminal_table(report).row_count == 6
    assert "known to be wrong on CPU" in rows(report)[-1][0]


def test_page_stands_alone_and_escapes_what_it_shows(report):
    page = html_page(report)
    assert page.count("<svg") == 2
    assert "none &lt;compiled&gt;" in page and "a &lt;CPU&gt;" in page and "a &lt;model&gt;" in page
    assert "32 streaming requests of 96 output tokens at temperature 1," in page and "a.py:1, b.py:22" in page
    assert not re.search(r'<(script|link|img)\b|src="http|url\(http', page)
    assert "1.60×" in page


def test_files_are_whole_or_not_there(report, tmp_path):
    write_report(tmp_path / "new", report, "<html></html>")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["report.html", "report.json"]
