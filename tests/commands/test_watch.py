"""`specdec watch`: one table of a real exporter's figures, a sentence where there are none, a live terminal."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np

from specdec.demo.servers import free_port
from specdec.metrics.counters import StepCounters
from tests.helpers.traffic import Exporter, record_steps

LABELS = {"model_name": "m", "head": "h", "tenant": ""}


def test_once_prints_one_table(run, tmp_path):
    record_steps(StepCounters(tmp_path, LABELS), 200, np.random.default_rng(0))
    with Exporter(tmp_path) as server:
        status, out, _ = run("watch", server.url, "--once", "--interval", "0.2")
    assert status == 0 and out.count("acceptance length") == 1 and "1.00 ms" in out


def test_a_server_without_requests_says_so(run, tmp_path):
    StepCounters(tmp_path, LABELS)
    with Exporter(tmp_path) as server:
        status, out, _ = run("watch", server.url, "--once", "--interval", "0.2")
    assert status == 0 and "No drafts yet" in out


def test_nobody_there_is_one_sentence(run):
    status, out, err = run("watch", f"localhost:{free_port()}", "--once")
    assert status == 2 and out == "" and err.startswith("specdec: No server answers at http://localhost:")


class Terminal:
    """`specdec watch URL` in a terminal of its own."""

    def __init__(self, url: str):
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "specdec", "watch", url, "--interval", "0.2"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"}
        self.process = subprocess.Popen(
            command, stdout=slave, stderr=slave, stdin=slave, env=environment, preexec_fn=_interruptible
        )
        os.close(slave)
        self.text = ""

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Reads on until the pattern has come, from where the last one ended."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline and self.process.poll() is None, f"no {pattern!r} in {self.text[-3000:]}"
            self._read()
        self.text = self.text[found.end() :]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self.text[-3000:]}"
            self._read()  # what nobody reads would fill the terminal, and the process wait for room
        os.close(self._master)
        return self.process.returncode

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):  # what Linux says where the other end has closed
                self.text += os.read(self._master, 65536).decode(errors="replace")


def _interruptible() -> None:
    """A shell's background jobs ignore Ctrl-C, and so do tests run by one; a terminal's own processes do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_terminal_is_refreshed_outlives_the_server_and_ends_with_ctrl_c(tmp_path):
    counters = StepCounters(tmp_path, LABELS)
    record_steps(counters, 10, np.random.default_rng(0))
    with Exporter(tmp_path) as server:
        terminal = Terminal(server.url)
        terminal.until(r"acceptance length")
        for lost in (10, 20):  # of 3 * steps drafts: what it shows follows
            record_steps(counters, 10, np.random.default_rng(0), lost=lost)
            share = 100 * counters.views["lost_rows"][0] / counters.views["draft_tokens"].sum()
            terminal.until(rf"lost draft rows[^\n]* {share:.1f} %")
        port = server.port
    terminal.until("No server answers")
    with Exporter(tmp_path, port):
        terminal.until(r"lost draft rows(?s:(?!No server answers).)*lost draft rows")
    assert terminal.interrupt() == 0
