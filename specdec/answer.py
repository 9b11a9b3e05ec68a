"""What an answer holds beside its text: `output.outputs[i].specdec` offline, a choice's "specdec" in responses.

Its parts have the names that the request asked for them by (specdec/request.py).
"""

from dataclasses import dataclass
from typing import Any

from specdec.metrics.figures import FiguresCollector, RequestFigures
from specdec.request import Request
from specdec.steering.readings import Collector, Readings


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one completion; a part that was not asked for is None."""

    read: Readings | None = None
    figures: RequestFigures | None = None

    def joined(self, later: "Answer") -> "Answer":
        """With that of the tokens that follow: readings are of new tokens alone, figures of all so far."""
        read = later.read if self.read is None or later.read is None else self.read.joined(later.read)
        return Answer(read, later.figures)

    def as_json(self) -> dict[str, Any]:
        """{"read": ..., "figures": ...}, those that were asked for."""
        parts = {"read": self.read, "figures": self.figures}
        return {name: part.as_json() for name, part in parts.items() if part is not None}


class AnswerCollector:
    """Makes the answer of one completion of what arrives step by step."""

    def __init__(self, request: Request) -> None:
        self._readings = None if request.read is None else Collector(request.read)
        self._figures = FiguresCollector() if request.figures else None

    def take(self, entry: dict[str, Any]) -> None:
        """What came with a step's output: see engines/vllm/api/route.py."""
        if self._readings is not None and "read" in entry:
            read = entry["read"]
            self._readings.take(read["rows"], read.get("prompt"), read.get("tokens", 0))
        if self._figures is not None and "figures" in entry:
            self._figures.take(**entry["figures"])

    def give(self, tokens: int, new: int | None) -> Answer:
        """Of a completion of `tokens` tokens so far; readings of all, or of the last `new`."""
        return Answer(
            None if self._readings is None else self._readings.give(tokens, new),
            None if self._figures is None else self._figures.give(tokens),
        )


def wants_answer(request: Request | None) -> bool:
    """Whether anything is to come with the text."""
    return request is not None and (request.read is not None or request.figures)
