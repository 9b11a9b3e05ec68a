"""How likely drafts are to be accepted, given that those before them are: a running mean of min(1, p/q), whose
expectation is Σ min(p, q) (expected acceptance, which says more per draft than counting those accepted).

By position over all requests of a kind (how they are sampled), and by request as a factor on that: one request's text
may be easier than another's.
"""

from dataclasses import dataclass

import numpy as np

WINDOW = 300.0  # reached drafts of a position that its mean remembers
OWN = 64.0  # of a request
PRIOR = 10.0  # reached drafts that a request counts as having behaved like all of its kind
HOPE = 0.8  # of a position that no draft has reached: try it
LARGEST = 0.98


@dataclass
class _Own:
    """A request: Σ min(1, p/q) of its reached drafts, and what its kind would have had at their positions."""

    kind: int
    found: float = 0.0
    usual: float = 0.0


@dataclass
class _Kind:
    """By position: Σ min(1, p/q) and reached drafts, of late."""

    sums: list[float]
    rows: list[float]


class RunningAcceptance:
    """most: drafts of a request at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kinds: dict[int, _Kind] = {}
        self._own: dict[str, _Own] = {}

    def admit(self, request_id: str, kind: int) -> None:
        """A request of this kind begins."""
        self._own[request_id] = _Own(kind)

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._own.pop(request_id, None)

    def learn(self, request_ids: list[str], counts: list[int], probability: list[float]) -> None:
        """One step. counts [B]: drafts of each; probability [N], request-major: nan where a draft was not reached."""
        at = 0
        for request_id, count in zip(request_ids, counts, strict=True):
            own = self._own.get(request_id)
            if count and own is not None:
                self._learn(own, probability[at : at + min(count, self._most)])
            at += count

    def _learn(self, own: _Own, probability: list[float]) -> None:
        kind = self._kind(own.kind)
        for position, value in enumerate(probability):
            if value != value:
                return
            usual = kind.sums[position] / kind.rows[position]
            own.found = own.found * (1 - 1 / OWN) + value
            own.usual = own.usual * (1 - 1 / OWN) + usual
            kind.sums[position] = kind.sums[position] * (1 - 1 / WINDOW) + value
            kind.rows[position] = kind.rows[position] * (1 - 1 / WINDOW) + 1

    def _kind(self, kind: int) -> _Kind:
        if kind not in self._kinds:
            self._kinds[kind] = _Kind([HOPE] * self._most, [1.0] * self._most)
        return self._kinds[kind]

    def of(self, request_ids: list[str]) -> np.ndarray:
        """[B, most]: the probability that each draft of each request is accepted, given those before it."""
        owns = [self._own.get(request_id) or _Own(-1) for request_id in request_ids]
        kinds = {kind: np.divide(found.sums, found.rows) for kind, found in self._kinds.items()}
        unseen = np.full(self._most, HOPE)
        usual = np.stack([kinds.get(own.kind, unseen) for own in owns])
        factor = np.asarray([(own.found + PRIOR) / (own.usual + PRIOR) for own in owns])
        return np.clip(factor[:, None] * usual, 0.01, LARGEST)
