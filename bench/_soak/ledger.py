"""What clients counted: requests by kind, tokens, ends, and everything that should not have been."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .calls import Call, Reply
from .served import AUDITED

KEPT = 20  # problems told in full


@dataclass
class Audit:
    """Sums over the figures of AUDITED's answers; arrays by position."""

    tokens: int = 0
    sequences: int = 0
    steps: int = 0
    sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, reply: Reply) -> None:
        self.tokens += reply.tokens
        for choice in reply.choices.values():
            figures = choice.specdec["figures"]
            self.sequences += 1
            self.steps += figures["steps"]
            for name in ("drafted", "reached", "accepted"):
                given = np.asarray(figures[name], dtype=np.int64)
                before = self.sums.get(name, np.zeros(0, dtype=np.int64))
                size = max(len(given), len(before))
                self.sums[name] = np.pad(before, (0, size - len(before))) + np.pad(given, (0, size - len(given)))


@dataclass
class Ledger:
    """tokens: of whole answers. seen, most: tokens of those that clients left, as far as they came and as far as they
    could have come. sequences: completions asked for. loose: those whose end only the API server sees, or nobody; the
    engine may have gone on for a moment. ends: finish reasons.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    seen: int = 0
    most: int = 0
    sequences: int = 0
    loose: int = 0
    left: int = 0
    stopped_early: int = 0  # tokens that those who stop by text could have had beyond what they had
    ends: Counter[str] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def enter(self, call: Call, reply: Reply) -> None:
        self.kinds[call.kind] += 1
        self.statuses["left" if call.leaves else str(reply.status)] += 1
        if reply.problem is not None:
            self._complain(f"{call.kind}: {reply.problem}")
        self.sequences += call.sequences
        if call.sequences and not reply.whole:
            self.left += call.sequences
            self.seen += reply.tokens
            self.most += call.most_tokens
        elif call.sequences:
            self._enter_whole(call, reply)
        if call.sequences and (not reply.whole or call.stops_by_text):
            self.loose += call.sequences

    def _enter_whole(self, call: Call, reply: Reply) -> None:
        self.tokens += reply.tokens
        self.ends.update(str(choice.finish) for choice in reply.choices.values())
        if call.stops_by_text:
            self.stopped_early += call.most_tokens - reply.tokens
        if call.tenant == AUDITED and reply.problem is None:
            self.audit.add(reply)

    def _complain(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < KEPT:
            self.problems.append(problem)

    @property
    def requests(self) -> int:
        return sum(self.kinds.values())


class Texts:
    """What `repeated` requests must say each time: as they said it alone.

    moved: seeded ones that said something else. One that was preempted goes on with a step without drafts, and there
    draws other tokens than it drew with them, of the same law; so there may be as many as preemptions.
    """

    def __init__(self) -> None:
        self._alone: dict[str, str] = {}
        self.moved = 0

    def check(self, name: str, reply: Reply, seeded: bool) -> None:
        """Sets the reply's problem where a greedy one says something else than the first time."""
        text = reply.choice(0).text
        if not reply.whole or self._alone.setdefault(name, text) == text:
            return
        if seeded:
            self.moved += 1
        else:
            reply.problem = f"{text!r} came where, alone, it was {self._alone[name]!r}"
