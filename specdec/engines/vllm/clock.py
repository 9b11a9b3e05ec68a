"""How long the phases of a step take, without waiting for the device: events where it works behind the host's back."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Phases may overlap; each is begun, then ended."""

    def begin(self, phase: str) -> None: ...

    def end(self, phase: str) -> None:
        """Nothing where it was not begun."""

    def take(self) -> list[tuple[str, float]]:
        """Phases whose times, in seconds, are known by now, each once."""

    def switch(self, on: bool) -> None:
        """Whether phases are timed; at first they are."""


class NoClock:
    """Where nobody asks for times."""

    def begin(self, phase: str) -> None: ...

    def end(self, phase: str) -> None: ...

    def take(self) -> list[tuple[str, float]]:
        return []

    def switch(self, on: bool) -> None: ...


class HostClock:
    """Where what is asked for has been done when the call returns."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._done: list[tuple[str, float]] = []
        self._on = True

    def switch(self, on: bool) -> None:
        self._on = on

    def begin(self, phase: str) -> None:
        if self._on:
            self._begun[phase] = time.perf_counter()

    def end(self, phase: str) -> None:
        begun = self._begun.pop(phase, None)
        if begun is not None:
            self._done.append((phase, time.perf_counter() - begun))

    def take(self) -> list[tuple[str, float]]:
        done, self._done = self._done, []
        return done


class DeviceClock:
    """On a CUDA device. The events of steps that are long over are used again."""

    def __init__(self) -> None:
        self._begun: dict[str, Any] = {}
        self._waiting: deque[tuple[str, Any, Any]] = deque()
        self._spare: list[Any] = []
        self._on = True

    def switch(self, on: bool) -> None:
        self._on = on

    def begin(self, phase: str) -> None:
        if self._on:
            self._begun[phase] = self._event()

    def end(self, phase: str) -> None:
        begun = self._begun.pop(phase, None)
        if begun is not None:
            self._waiting.append((phase, begun, self._event()))

    def take(self) -> list[tuple[str, float]]:
        done = []
        while self._waiting and self._waiting[0][2].query():
            phase, begun, ended = self._waiting.popleft()
            done.append((phase, begun.elapsed_time(ended) / 1000))
            self._spare += [begun, ended]
        return done

    def _event(self) -> Any:
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def timed(clock: Clock, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, with its time kept."""

    def kept(*args: Any, **kwargs: Any) -> Any:
        clock.begin(phase)
        found = call(*args, **kwargs)
        clock.end(phase)
        return found

    return kept


def clock_for(device: torch.device, wanted: bool) -> Clock:
    """The one that suits the device. wanted: whether `take` will be called with every step."""
    if not wanted:
        return NoClock()
    return DeviceClock() if device.type == "cuda" else HostClock()
