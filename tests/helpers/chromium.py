"""A page in headless Chromium, looked at through its DevTools protocol."""

import base64
import json
import os
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

from tests.helpers.debian import program

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-port=0", "--window-size=1200,1000",
)  # fmt: skip


class Browser:
    """Context manager: one empty tab. folder: an empty one for the browser's own files."""

    def __init__(self, folder: Path):
        self._chromium = program("chromium", "chromium", "usr/lib/chromium/chromium")
        self._folder = folder
        self._open = ExitStack()
        self._sent = 0
        self.events: list[dict[str, Any]] = []  # what the page did: requests, exceptions, console messages

    def __enter__(self) -> "Browser":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            [self._chromium.path, *FLAGS, f"--user-data-dir={self._folder / 'profile'}", "about:blank"],
            env={**os.environ, **self._chromium.env},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._socket = self._open.enter_context(connect(self._tab(), max_size=None, proxy=None, ping_interval=None))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it are kept."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def evaluate(self, expression: str) -> Any:
        """Its value, of JSON's types."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def until(self, expression: str, seconds: float = 30) -> Any:
        """The value of an expression of the page once it is true. AssertionError: it does not become so."""
        deadline = time.monotonic() + seconds
        careful = (
            f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()"  # a page that is still loading
        )
        while not (found := self.evaluate(careful)):
            assert time.monotonic() < deadline, f"{expression} is {found!r}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.2)
        return found

    def screenshot(self, path: Path, width: int = 1200, dark: bool = False) -> None:
        """The whole page as a PNG, in the light or dark colours that a system may ask for."""
        wanted = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=wanted)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def problems(self) -> list[dict[str, Any]]:
        """Exceptions, and errors in the console that do not come from a server that is gone."""
        self.evaluate("1")  # fetches what has come
        found = [event for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        return found + [entry for entry in logged if entry["level"] == "error" and entry["source"] != "network"]

    def asked(self) -> set[str]:
        """Addresses that the page asked for."""
        self.evaluate("1")
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return {event["params"]["request"]["url"] for event in sent}

    def _tab(self) -> str:
        """The address of the tab's protocol, once the browser listens."""
        port_file, deadline = self._folder / "profile" / "DevToolsActivePort", time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            log = self._folder / "log"
            assert self._process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            tabs = json.load(answer)
        return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
