"""Runs implementations, each in a worker process of its own, and collects the results.

A check without a result after `timeout` seconds, or in which the process dies, has failed: the worker is started again
with the checks that are left.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from specdec.conformance.registry import source
from specdec.conformance.run import Result
from specdec.conformance.worker import FD

START_TIMEOUT = 180.0  # seconds to import an engine, on a busy machine


class Absent(Exception):
    """The implementation cannot be loaded in its worker; the message says why."""


def run_implementation(
    name: str, checks: Sequence[str], timeout: float, report: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """The results of `checks`, in that order; `report` gets each one when it comes. Raises Absent."""
    results: list[Result] = []
    while len(results) < len(checks):
        left = checks[len(results) :]
        finished, fault = _one_worker(name, left, timeout, report)
        results += finished
        if fault is not None:
            broken = Result(name, left[len(finished)], "failed", fault)
            report(broken)
            results.append(broken)
    return results


def _one_worker(
    name: str, checks: Sequence[str], timeout: float, report: Callable[[Result], None]
) -> tuple[list[Result], str | None]:
    """Results until the worker ends, and what went wrong where some are missing."""
    read, write = os.pipe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(source(name).environment), FD: str(write)}
    command = [sys.executable, "-m", "specdec.conformance.worker", name, *checks]
    process = subprocess.Popen(
        command, pass_fds=(write,), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    os.close(write)
    try:
        results, fault = _listen(read, timeout, report)
    finally:
        os.close(read)
        process.kill()
        _, errors = process.communicate()
    if fault is None and len(results) < len(checks):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        fault = f"the process ended with status {process.returncode}: {last[:200]}"
    return results, fault


def _listen(pipe: int, timeout: float, report: Callable[[Result], None]) -> tuple[list[Result], str | None]:
    results: list[Result] = []
    deadline, buffer = time.monotonic() + START_TIMEOUT, b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return results, f"no result after {timeout:g} s"
            chunk = os.read(pipe, 65536)
            if not chunk:
                return results, None
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                content: dict[str, Any] = json.loads(line)
                if content["state"] == "absent":
                    raise Absent(content["detail"])
                if content["state"] == "started":
                    deadline = time.monotonic() + timeout
                    continue
                results.append(Result(**content))
                report(results[-1])
