"""One server process: started, waited for, always stopped together with everything that it started."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from specdec.engines.command import ServerCommand
from specdec.engines.logs import last_words
from specdec.errors import SpecdecError


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Context manager: a ready server at `url` inside, no process left outside.

    `log` receives all that the server prints; its last lines are in the SpecdecError raised when the server ends by
    itself or is not ready within `timeout` seconds.
    """

    def __init__(self, command: ServerCommand, port: int, log: Path, timeout: float = 240):
        self.command, self.log, self.timeout = command, log, timeout
        self.url = f"http://127.0.0.1:{port}"
        self.seconds_to_ready = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        assert self._process is None, "one process per Server"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            output.write(f"$ {self.command.shell()}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                self.command.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.command.env},
                start_new_session=True,  # a group of its own: stopping reaches the engine's processes too
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        began = time.monotonic()
        while not self._answers():
            self.check_alive()
            if time.monotonic() - began > self.timeout:
                raise SpecdecError(f"The server was not ready after {self.timeout:.0f} s. {self.last_words()}")
            time.sleep(0.2)
        self.seconds_to_ready = time.monotonic() - began

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False  # not listening yet; check_alive tells a server that never will

    def check_alive(self) -> None:
        """SpecdecError with the log's last lines if the server has ended."""
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise SpecdecError(f"The server ended by itself with status {status}. {self.last_words()}")

    def last_words(self) -> str:
        """The end of the log, and where it is."""
        return last_words(self.log)

    def metrics(self) -> str:
        """What /metrics answers now."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def stop(self, patience: float = 10) -> None:
        """End the server's whole process group: asked first, killed when it has not gone after `patience` seconds."""
        if self._process is None:
            return
        group = self._process.pid
        _signal_group(group, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while _group_exists(group, self._process) and time.monotonic() < deadline:
            time.sleep(0.1)
        _signal_group(group, signal.SIGKILL)
        self._process.wait()
        self._process = None


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # all gone already


def _group_exists(group: int, leader: subprocess.Popen[bytes]) -> bool:
    leader.poll()  # reap it, or the group would seem to live on
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
