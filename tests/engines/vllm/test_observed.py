"""A real server, observed as its users observe it: Prometheus, the dashboard's queries, the page, the terminal."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from specdec.demo.servers import Server, free_port
from specdec.engines.command import server_command
from specdec.engines.installed import require_vllm
from specdec.metrics.dashboard import write_files
from specdec.metrics.live import POLICY
from specdec.watch.history import History
from specdec.watch.scrape import scrape
from tests.engines.vllm.engine import HEAD, MODEL
from tests.helpers.chromium import Browser
from tests.helpers.prometheus import Prometheus, promtool

KEY = "not for everyone"
EXTRA = ("--max-model-len", "256", "--served-model-name", "tiny", "--dtype", "float32", "--api-key", KEY)
VARIABLES = {"$model_name": "tiny", "$head": ".*", "$tenant": ".*", "$__rate_interval": "1m"}


def send(server: Server, ids: list[int], **more: Any) -> None:
    body = {"model": "tiny", "prompt": ids, "max_tokens": 96, "temperature": 1.0, "ignore_eos": True, **more}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{server.url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 96


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings, port = {"metrics": {"max_tenants": 4}}, free_port()
    command = server_command(
        "specdec", require_vllm(), str(MODEL), str(HEAD), eager=True, settings=settings, port=port, extra=EXTRA
    )
    with Server(command, port, tmp_path_factory.mktemp("server") / "log", timeout=600) as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dashboard and the rules."""
    board, rules = write_files(tmp_path_factory.mktemp("dashboard"), "10s", "1h")
    return board, rules


@pytest.fixture(scope="module")
def prometheus(
    server: Server, written: tuple[Path, Path], prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It has scraped before, during and after enough traffic for steps that are looked at exactly."""
    target, folder = server.url.removeprefix("http://"), tmp_path_factory.mktemp("prometheus")
    with Prometheus(folder, [target], [written[1]]) as found:
        assert found.until(lambda: found.query("specdec_verify_steps_total"), 30), "nothing is scraped"
        with ThreadPoolExecutor(4) as pool:
            tenants = [{"vllm_xargs": {"specdec": json.dumps({"tenant": name})}} for name in ("team-a", "team-b")]
            work = [
                pool.submit(send, server, ids, **(tenants[i % 3] if i % 3 < 2 else {}))
                for i, ids in enumerate(prompts[:12])
            ]
            for done in work:
                done.result()
        total = scrape(f"{server.url}/metrics").total("specdec_verify_steps_total")
        assert found.until(lambda: sum(v for _, v in found.query("specdec_verify_steps_total")) == total, 30)
        yield found


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus, written: tuple[Path, Path]) -> None:
    asked = 0
    for panel in json.loads(written[0].read_text())["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(name, value)
            found = prometheus.query(expr)
            assert any(math.isfinite(value) for _, value in found), f"{panel['title']}: {expr} gives {found}"
            asked += 1
    assert asked > 30


def test_choices_of_the_variables(prometheus: Prometheus, written: tuple[Path, Path]) -> None:
    """What Grafana's label_values(metric, label) offers."""
    for variable in json.loads(written[0].read_text())["templating"]["list"][1:]:
        metric, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        for name, value in VARIABLES.items():
            metric = metric.replace(name, value)
        offered = {labels.get(label, "") for labels, _ in prometheus.query(metric)}
        assert offered - {""}, variable["name"]
        if label == "tenant":
            assert offered == {"", "team-a", "team-b"}


def test_a_healthy_server_is_recorded_and_not_accused(prometheus: Prometheus) -> None:
    assert prometheus.until(lambda: prometheus.query("count_over_time(specdec:acceptance_observed:ratio[1m])"), 30)
    assert prometheus.query('ALERTS_FOR_STATE{severity="critical"}') == []
    assert prometheus.query('count_over_time(ALERTS{severity="critical"}[5m])') == []


def test_metrics_are_written_as_prometheus_wants_them(prometheus: Prometheus, server: Server) -> None:
    """promtool names what it dislikes by metric: vLLM's are vLLM's."""
    done = promtool().run("check", "metrics", input=server.metrics())
    assert "parsing" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("specdec_")] == []


def test_the_page_shows_the_server(prometheus: Prometheus, server: Server, tmp_path: Path) -> None:
    """No key is asked for it, as for /metrics, while the API asks for one."""
    with urllib.request.urlopen(f"{server.url}/specdec", timeout=10) as answer:
        assert (
            answer.headers["Content-Type"].startswith("text/html")
            and answer.headers["Content-Security-Policy"] == POLICY
        )
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.url}/v1/models", timeout=10)
    with Browser(tmp_path) as browser:
        browser.open(f"{server.url}/specdec")
        browser.until("document.body.dataset.state === 'live'")
        rows = browser.evaluate(
            "[...document.querySelectorAll('#positions tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
        )
        assert "tiny" in browser.evaluate("document.querySelector('h1').textContent")
        assert browser.problems() == []
        assert browser.asked() == {f"{server.url}/specdec", f"{server.url}/metrics"}
    found = scrape(f"{server.url}/metrics")
    accepted, reached = (found.by(f"specdec_{name}_tokens_total", "position") for name in ("accepted", "reached_draft"))
    assert [(row[0], row[2]) for row in rows] == [(p, f"{accepted[p] / reached[p]:.3f}") for p in reached]
    assert len(rows) == 3


def test_the_terminal_shows_the_server(prometheus: Prometheus, server: Server, prompts: list[list[int]]) -> None:
    history, console = History(f"{server.url}/metrics", 60), Console(width=120, record=True)
    history.look()
    send(server, prompts[20])
    history.look()
    console.print(history.table())
    lines = {" ".join(line.split()[:2]): line for line in console.export_text().splitlines() if line.strip()}
    assert float(lines["acceptance length,"].split()[-2]) > 1.2
    assert float(lines["output tokens/s"].split()[-1]) > 0
    assert all(float(lines[name].split()[1]) > 0 for name in lines if name[:1].isdigit())
