"""What a step takes, in seconds.

    seconds(rows, passes, requests) = target(rows) + beside(passes, requests)

rows: of the target's forward, which are verified too: a request's drafts and one more. It is the step before that asked
for these drafts, so the two parts are learned apart: a step may have many rows and make few passes. Beside is what the
step spends on anything else: the head over all rows, its passes over the requests, what the engine does around it. By
passes; a number that no such step has had yet is taken to lie on the line between its neighbours that some have had.
"""

from specdec.drafting.adaptive.curves import SURE, Curve

RECENT = 64  # different numbers of rows


class Costs:
    """Learned from steps that go over no prompt."""

    def __init__(self) -> None:
        self._target = Curve()
        self._beside: dict[int, Curve] = {}
        self._met: dict[int, None] = {}  # numbers of rows, the one met last at the end

    def learn(self, rows: int, passes: int, requests: int, phases: dict[str, float], whole: float | None) -> None:
        """phases: seconds of "target", "verify" and "draft" of a step, those that are known; whole: of all of it, None
        where something else came between."""
        if "target" not in phases:
            return
        if self._is_new(rows) and self._target.seen(rows) >= SURE:
            return
        target = phases["target"] + phases.get("verify", 0.0)
        self._target.learn(rows, target)
        if whole is not None:
            self._beside.setdefault(passes, Curve()).learn(requests, max(whole - target, 0.0))

    def _is_new(self, rows: int) -> bool:
        """Whether a step had so many rows lately. The first one is slower: see plan.rounded_up."""
        new = rows not in self._met
        self._met.pop(rows, None)
        self._met[rows] = None
        if len(self._met) > RECENT:
            del self._met[next(iter(self._met))]
        return new

    def known(self, passes: int, requests: int, enough: int) -> bool:
        """Whether steps with so many passes and requests have been seen often enough."""
        return passes in self._beside and self._beside[passes].seen(requests) >= enough

    def seconds(self, rows: float, passes: int, requests: int) -> float:
        """Of a step."""
        return self._target.at(rows) + self._beside_at(passes, requests)

    def _beside_at(self, passes: int, requests: int) -> float:
        seen = sorted(k for k, curve in self._beside.items() if curve.seen(requests)) or sorted(self._beside)
        if not seen:
            return 0.0
        below = max((k for k in seen if k <= passes), default=seen[0])
        above = min((k for k in seen if k >= passes), default=seen[-1])
        low = self._beside[below].at(requests)
        if below == above:
            return low
        return low + (passes - below) / (above - below) * (self._beside[above].at(requests) - low)

    def per_row(self, rows: float) -> float:
        """Seconds that one row more takes the target, around so many; 0 at least."""
        low, high = max(rows / 1.3, 1.0), rows * 1.3
        return max(self._target.at(high) - self._target.at(low), 0.0) / (high - low)
