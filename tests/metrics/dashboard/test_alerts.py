"""Every alert in a staged fault: real counters, a real exporter, a real Prometheus with the rules for short windows."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdec.metrics.counters import StepCounters
from specdec.metrics.dashboard import write_files
from tests.helpers.prometheus import Prometheus
from tests.helpers.traffic import Exporter, record_steps

# What each model does once its fault begins (see record_steps), and the alerts that are to fire.
FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "healthy": ({}, set()),
    "collapsed": ({"accepts": 0.02}, {"SpecdecAcceptanceCollapsed", "SpecdecAcceptanceFell"}),
    "fell": ({"accepts": 0.25}, {"SpecdecAcceptanceFell"}),
    "accepts-too-few": ({"expects": 0.9, "exact": 0.9}, {"SpecdecObservedLeavesExpected"}),
    "wrong-q": ({"exact": 0.35}, {"SpecdecExactLeavesExpected"}),
    "slow": ({"verify": 0.02}, {"SpecdecVerifySlower"}),
    "loses-rows": ({"lost": 6}, {"SpecdecLostDraftRows"}),
}
WINDOW, PAST = "5s", "40s"


class Traffic(threading.Thread):
    """Steps of all models, until `done`; with their faults from `faulty` on."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        labels = {"head": "h", "tenant": ""}
        self._counters = {name: StepCounters(folder, {"model_name": name, **labels}) for name in FAULTS}
        self._rng = np.random.default_rng(3)
        self.faulty, self.done = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            for name, counters in self._counters.items():
                record_steps(counters, 40, self._rng, **(FAULTS[name][0] if self.faulty.is_set() else {}))


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(tmp_path / "cells")
    made.start()
    yield made
    made.done.set()
    made.join()


class Seen:
    """What has fired so far, by model: alerts about the past end when the fault has become the past."""

    def __init__(self, prometheus: Prometheus):
        self._prometheus = prometheus
        self.names: dict[str, set[str]] = {name: set() for name in FAULTS}
        self.alerts: list[dict[str, Any]] = []

    def look(self) -> dict[str, set[str]]:
        for alert in self._prometheus.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                self.names[alert["labels"]["model_name"]].add(alert["labels"]["alertname"])
                self.alerts.append(alert)
        return self.names


def test_every_alert_fires_in_its_fault_and_in_no_other(tmp_path: Path, traffic: Traffic) -> None:
    _, rules = write_files(tmp_path / "rules", WINDOW, PAST)
    wanted = {name: alerts for name, (_, alerts) in FAULTS.items()}
    exporter = Exporter(tmp_path / "cells")
    scraping = Prometheus(tmp_path / "prometheus", [f"127.0.0.1:{exporter.port}"], [rules], every="500ms")
    with exporter, scraping as prometheus:
        past, seen = f"min(count_over_time(specdec:verify_seconds:mean[{PAST}])) > 12", Seen(prometheus)
        assert prometheus.until(lambda: prometheus.query(past), 60), "the rules record nothing"
        assert not any(seen.look().values())
        traffic.faulty.set()
        prometheus.until(lambda: seen.look() == wanted, 60)
        assert seen.names == wanted
    for alert in seen.alerts:
        said = " ".join(alert["annotations"].values())
        assert alert["labels"]["model_name"] in said and "<no value>" not in said and "error" not in said.lower()
