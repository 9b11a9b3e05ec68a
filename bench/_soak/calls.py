"""A request of the soak, what is to come of it, and what came."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass
class Choice:
    """What came of one choice; specdec: its last "specdec", entries: how many tokens its readings were of."""

    text: str = ""
    finish: str | None = None
    logprobs: int = 0
    specdec: dict[str, Any] = field(default_factory=dict)
    entries: int = 0


@dataclass
class Reply:
    """status None: the client left before there was one. tokens: by the server's count, of all choices.

    whole: all came, with [DONE] where it was a stream. problem: what should not be, one sentence.
    """

    status: int | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    tokens: int = 0
    whole: bool = False
    problem: str | None = None

    def choice(self, index: int) -> Choice:
        return self.choices.setdefault(index, Choice())


def nothing_more(reply: Reply) -> str | None:
    """Of a request whose answer need only be whole."""
    return None


@dataclass(frozen=True)
class Call:
    """body: an object, sent as JSON, or the bytes themselves. status: the one that must come.

    leave_events: the client closes the connection behind so many events of the stream; leave_seconds: after that time,
    whatever has come; send: it closes the connection having sent so many bytes of the body.

    check: says what is wrong with a whole answer. tenant: the one that the request names.
    """

    kind: str
    body: dict[str, Any] | bytes
    path: str = COMPLETIONS
    status: int = 200
    leave_events: int | None = None
    leave_seconds: float | None = None
    send: int | None = None
    check: Callable[[Reply], str | None] = nothing_more
    tenant: str | None = None

    @property
    def leaves(self) -> bool:
        return any(cut is not None for cut in (self.leave_events, self.leave_seconds, self.send))

    @property
    def sequences(self) -> int:
        """How many completions it asks for, where it is served."""
        return int(self.body.get("n", 1)) if self.status == 200 and isinstance(self.body, dict) else 0

    @property
    def most_tokens(self) -> int:
        """The most that it can make the engine generate."""
        return self.sequences * int(self.body["max_tokens"]) if self.sequences else 0  # type: ignore[call-overload,index]

    @property
    def stops_by_text(self) -> bool:
        """The API server sees the end, so the engine goes on for a step or more."""
        return isinstance(self.body, dict) and bool(self.body.get("stop"))
