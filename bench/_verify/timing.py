"""Times and memory of contenders that take turns, warm and with buffers that rotate beyond the last-level cache."""

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

HOST_AHEAD_CYCLES = 4_000_000  # about 2 ms

Call = tuple[Callable[[], Any], Callable[[Any], Any]]  # (prepare, run)


def medians_ms(calls: Mapping[str, Sequence[Call]], seconds: float, device: str, at_least: int = 5) -> dict[str, float]:
    """Median milliseconds of `run`. Each name has one call per buffer; the names take turns, and so do the buffers."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    turn = 0
    while any(spent[name] < seconds or len(times[name]) < at_least for name in calls):
        for name, buffers in calls.items():
            if spent[name] >= seconds and len(times[name]) >= at_least:
                continue
            prepare, run = buffers[turn % len(buffers)]
            ms = _once(prepare, run, device)
            times[name].append(ms)
            spent[name] += ms / 1000
        turn += 1
    return {name: statistics.median(t) for name, t in times.items()}


def _once(prepare: Callable[[], Any], run: Callable[[Any], Any], device: str) -> float:
    prepared = prepare()
    if device == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # The device is kept busy while the host issues the work, as in an engine that runs ahead of it: what is timed
        # is the device's work, and the host's where a contender waits for the device.
        torch.cuda._sleep(HOST_AHEAD_CYCLES)
        begin.record()
        run(prepared)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)
    began = time.perf_counter()
    run(prepared)
    return 1000 * (time.perf_counter() - began)


def host_us(call: Call, times: int = 20) -> float:
    """Median microseconds that the host takes to issue one `run` on a GPU."""
    prepare, run = call
    spent = []
    for _ in range(times):
        prepared = prepare()
        torch.cuda.synchronize()
        began = time.perf_counter()
        run(prepared)
        spent.append(1e6 * (time.perf_counter() - began))
    torch.cuda.synchronize()
    return statistics.median(spent)


def extra_bytes(call: Call, device: str) -> int | None:
    """Most memory that one `run` holds beyond what was held before; None where this system does not tell."""
    prepare, run = call
    prepared = prepare()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(prepared)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # Without this, memory that earlier calls freed is used again unnoticed.
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD: larger blocks come from the system, and go back to it
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew from what is held now
    except OSError:
        return None
    before = _resident("VmRSS")
    run(prepared)
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))
