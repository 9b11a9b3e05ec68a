"""The scrapes of the last seconds, and the table of what happened in them."""

from collections import deque

from rich.console import RenderableType

from specdec.metrics.scrape import Scrape
from specdec.watch.figures import figures, state
from specdec.watch.scrape import scrape
from specdec.watch.table import render


class History:
    """url: of /metrics. seconds: how far back "lately" reaches."""

    def __init__(self, url: str, seconds: float):
        self._url, self._seconds = url, seconds
        self._scrapes: deque[Scrape] = deque()

    def look(self) -> None:
        """Takes one more scrape. SpecdecError: see `scrape`."""
        new = scrape(self._url)
        while self._scrapes and new.at - self._scrapes[0].at > self._seconds:
            self._scrapes.popleft()
        if self._scrapes and new.total("specdec_verify_steps_total") < self._scrapes[-1].total(
            "specdec_verify_steps_total"
        ):
            self._scrapes.clear()  # the server began anew
        self._scrapes.append(new)

    def table(self, note: str = "") -> RenderableType:
        first, last = self._scrapes[0], self._scrapes[-1]
        return render(figures(last.since(first)), figures(last), state(last), last.at - first.at, note)
