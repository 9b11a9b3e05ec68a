"""The page in a real browser, over real counters behind a real exporter: what it shows, asks for, and does when the
server goes and comes back."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from specdec.metrics.counters import StepCounters
from specdec.metrics.live import document
from tests.helpers.chromium import Browser
from tests.helpers.traffic import Exporter, record_steps

STATE = "document.body.dataset.state"
ROWS = "[...document.querySelectorAll('#positions tbody tr')].map((row) => [...row.cells].map((c) => c.textContent))"
COURSES = "[...document.querySelectorAll('.course')].map((line) => line.getAttribute('d'))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def shares(counters: StepCounters) -> list[list[str]]:
    """What the table is to show: position, observed, expected, exact, drafts."""
    views = counters.views
    return [
        [str(p), ""]
        + [f"{views[part][p] / views[whole][p]:.3f}" for part, whole in (
            ("accepted", "reached"), ("expected_sum", "reached"), ("exact_sum", "exact_rows"))]
        + [f"{views['reached'][p]:.0f}"]
        for p in range(3)
    ]  # fmt: skip


def test_from_no_drafts_to_figures_to_no_server_and_back(browser: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counters = StepCounters(tmp_path / "first", {"model_name": "tiny <b>", "head": "h", "tenant": ""})
    with Exporter(tmp_path / "first") as server:
        browser.open(f"{server.url}/specdec")
        browser.until(f"{STATE} === 'empty'")
        assert "No drafts yet" in browser.evaluate("document.body.innerText")
        record_steps(counters, 400, rng, exact=0.69)
        browser.until(f"{STATE} === 'live' && {COURSES}.some((line) => line)")
        record_steps(counters, 400, rng, exact=0.69)
        shown = shares(counters)
        assert browser.until(f"JSON.stringify({ROWS}) === {as_json(shown)!r} && {ROWS}") == shown
        assert "tiny <b>" in browser.evaluate("document.querySelector('h1').textContent")
        port = server.port
    browser.until(f"{STATE} === 'gone'")
    assert "does not answer" in browser.evaluate("document.getElementById('status').textContent")
    assert browser.evaluate(ROWS) == shown, "the last figures stay"
    restarted = StepCounters(tmp_path / "second", {"model_name": "tiny <b>", "head": "h", "tenant": ""})
    record_steps(restarted, 30, rng)
    with Exporter(tmp_path / "second", port):
        browser.until(f"{STATE} === 'live'")
        assert browser.until(f"JSON.stringify({ROWS}) === {as_json(shares(restarted))!r}"), "what was before is gone"
    assert browser.asked() == {f"http://127.0.0.1:{port}/{path}" for path in ("specdec", "metrics")}
    assert browser.problems() == []


def as_json(rows: list[list[str]]) -> str:
    return json.dumps(rows, separators=(",", ":"))


def test_dark_and_light_and_narrow(browser: Browser, tmp_path: Path) -> None:
    counters = StepCounters(tmp_path / "cells", {"model_name": "tiny", "head": "h", "tenant": ""})
    record_steps(counters, 100, np.random.default_rng(2))
    with Exporter(tmp_path / "cells") as server:
        browser.open(f"{server.url}/specdec")
        browser.until(f"{STATE} === 'live'")
        brightness = {}
        for dark in (False, True):
            browser.screenshot(tmp_path / "page.png", dark=dark)
            colour = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            brightness[dark] = sum(colour) / 3
            assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
        assert brightness[False] > 200 and brightness[True] < 60
        browser.screenshot(tmp_path / "page.png", width=420)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_document_names_nothing_outside() -> None:
    text = document().replace("http://www.w3.org/2000/svg", "")
    assert not any(
        word in text for word in ("http:", "https:", "@import", "url(", " src=", "/* style.css */", "/* scripts */")
    )
