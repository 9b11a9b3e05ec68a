"""A real Prometheus that scrapes what a test names, and its promtool."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from specdec.demo.servers import free_port
from tests.helpers.debian import Program, program

T = TypeVar("T")


def promtool() -> Program:
    return program("promtool", "prometheus", "usr/bin/promtool", alone=True)


class Prometheus:
    """Context manager. Scrapes /metrics at `targets` ("host:port") and evaluates the files `rules` at that interval."""

    def __init__(self, folder: Path, targets: Sequence[str], rules: Sequence[Path] = (), every: str = "1s"):
        self._program = program("prometheus", "prometheus", "usr/bin/prometheus", alone=True)
        self._folder, self._port = folder, free_port()
        config = {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), every),
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "vllm", "static_configs": [{"targets": list(targets)}]}],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML

    def __enter__(self) -> "Prometheus":
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            [
                self._program.path,
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.until(lambda: self._process.poll() is not None or self._ready(), 30)
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """What /api/v1/<path> answers."""
        where = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(where, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series, now."""
        return [(found["metric"], float(found["value"][1])) for found in self.ask("query", query=expr)["result"]]

    @staticmethod
    def until(condition: Callable[[], T], seconds: float) -> T:
        """What the condition gives once it is true, or after that many seconds whatever it gives then."""
        deadline = time.monotonic() + seconds
        while not (found := condition()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
