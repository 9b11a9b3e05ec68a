"""Scrapes of a real exporter, and what goes wrong at other addresses, each said in one sentence."""

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from specdec.demo.servers import free_port
from specdec.errors import SpecdecError
from specdec.metrics.counters import StepCounters
from specdec.watch.scrape import metrics_url, scrape
from tests.helpers.traffic import Exporter, record_steps

LABELS = {"model_name": "m", "head": "h"}


@pytest.mark.parametrize("given", ["localhost:8000", "http://localhost:8000", "http://localhost:8000/metrics/"])
def test_all_ways_to_name_a_server(given: str) -> None:
    assert metrics_url(given) == "http://localhost:8000/metrics"


def test_tenants_are_added_up_and_positions_told_apart(tmp_path: Path) -> None:
    both = [StepCounters(tmp_path, {**LABELS, "tenant": tenant}) for tenant in ("", "a")]
    for counters in both:
        record_steps(counters, 20, np.random.default_rng(0), drafts=11)
    with Exporter(tmp_path) as server:
        found = scrape(f"{server.url}/metrics")
    assert found.total("specdec_verify_steps_total") == 40
    drafts = found.by("specdec_draft_tokens_total", "position")
    assert list(drafts) == [str(n) for n in range(11)] and set(drafts.values()) == {40.0}


def test_since_gives_what_was_added(tmp_path: Path) -> None:
    counters = StepCounters(tmp_path, {**LABELS, "tenant": ""})
    with Exporter(tmp_path) as server:
        record_steps(counters, 20, np.random.default_rng(0))
        before = scrape(f"{server.url}/metrics")
        record_steps(counters, 5, np.random.default_rng(0))
        grown = scrape(f"{server.url}/metrics").since(before)
    assert grown.total("specdec_verify_steps_total") == 5
    assert grown.seconds is not None and grown.seconds > 0


def test_nobody_listens() -> None:
    with pytest.raises(SpecdecError, match=r"No server answers at .*refused.*specdec serve"):
        scrape(f"http://127.0.0.1:{free_port()}/metrics")


@pytest.mark.parametrize("url", ["http://", "ftp://x y/metrics", "gopher://127.0.0.1/metrics"])
def test_no_address(url: str) -> None:
    with pytest.raises(SpecdecError):
        scrape(url)


def test_what_speaks_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(SpecdecError, match="is no metrics"):
            scrape(f"http://127.0.0.1:{other.getsockname()[1]}/metrics")
        thread.join()


def test_a_server_that_has_no_metrics(tmp_path: Path) -> None:
    StepCounters(tmp_path, {**LABELS, "tenant": ""})
    with Exporter(tmp_path) as server:
        with pytest.raises(SpecdecError, match="answers HTTP 404"):
            scrape(f"{server.url}/elsewhere/metrics")
        with pytest.raises(SpecdecError, match="is no metrics"):
            scrape(f"{server.url}/specdec")


def test_a_server_without_figures_of_ours(tmp_path: Path) -> None:
    with (
        Exporter(tmp_path) as server,  # an empty folder: no worker of ours
        pytest.raises(SpecdecError, match=r"shows no figures of specdec.*--worker-cls"),
    ):
        scrape(f"{server.url}/metrics")
