"""A server's figures without an engine: real counters, written as a worker does, behind a real exporter."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from specdec.metrics.counters import StepCounters
from specdec.metrics.export import SpecdecCollector
from specdec.metrics.live import POLICY, document

NAN = float("nan")


def record_steps(
    counters: StepCounters,
    steps: int,
    rng: np.random.Generator,
    *,
    accepts: float = 0.7,
    expects: float | None = None,
    exact: float | None = None,
    verify: float = 0.001,
    lost: int = 0,
    drafts: int = 3,
) -> None:
    """steps: of one request. accepts, expects, exact: acceptance at each position, observed, expected (default: as
    observed) and exact (likewise). verify: seconds of the phase."""
    expects, exact = accepts if expects is None else expects, accepts if exact is None else exact
    runs = np.cumprod(rng.random((steps, drafts)) < accepts, axis=1)
    accepted = runs.sum(1)
    reached = np.arange(drafts) <= accepted[:, None]
    counters.record(np.full(steps, drafts), accepted, np.where(reached, expects, NAN).ravel())
    places = np.nonzero(reached)
    kept = runs[places].astype(bool)
    counters.record_exact(places[1], np.full(len(kept), exact), rng.exponential(1.2, len(kept)), kept)
    for phase, seconds in [("target", 0.012), ("verify", verify), ("draft", 0.004)] * steps:
        counters.record_phase(phase, seconds)
    counters.record_lost(lost)
    counters.set("drafts_per_step", drafts)
    counters.set("draft_rows_bytes", 3 * 2**20)


class Exporter:
    """Context manager: /metrics of the counters in `folder`, and /specdec beside it, on the loopback."""

    def __init__(self, folder: Path, port: int = 0):
        registry = CollectorRegistry()
        registry.register(SpecdecCollector(folder))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                metrics = self.path == "/metrics"
                body = generate_latest(registry) if metrics else document().encode()
                self.send_response(200 if metrics or self.path == "/specdec" else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4" if metrics else "text/html; charset=utf-8")
                self.send_header("Content-Security-Policy", POLICY)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Exporter":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
