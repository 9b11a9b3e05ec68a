"""What a step takes, in seconds.

    seconds(rows, passes, requests) = usual(passes, requests) + target(rows) - target(requests · (1 + passes))

usual: of a step that goes on as those before it did, where every request has as many drafts to verify as the head makes
passes. As it was measured, whole: what takes no part in the comparison of two numbers of drafts does no harm then. A
number that no such step has had yet is taken to lie on the line between its neighbours that some have had. target: of
its forward and of verifying, by rows, which are a request's drafts and one more: what leaving drafts out saves.

All of it at one pace. That of a machine which others use too changes by a third within seconds, and would make whatever
was measured last look better or worse than the rest. So numbers of passes are compared by the steps just behind a
change of them; what steps take more or less than expected while nothing changes is the pace's, and is taken out before
anything is learned.
"""

from specdec.drafting.adaptive.curves import SURE, Curve

RECENT = 64  # different numbers of rows
FRESH, SETTLED = 2, 5  # steps with the same number of passes, between which it is compared with the number before
ENOUGH = 12  # steps with a number of passes and requests, after which only such comparisons tell of it
COMPARED = 0.05  # the share by which one of their steps still moves it
FOLLOWS = 0.1  # the share of what any other step shows by which the pace follows
LARGEST = 2.0  # that a step may show of the pace: a machine stands still now and then


class Costs:
    """Learned from steps that go over no prompt, or over little of one, which counts among the rows then."""

    def __init__(self) -> None:
        self._target = Curve()
        self._usual: dict[int, Curve] = {}
        self._passes, self._same = -1, 0  # of the step before, and how many steps in a row had as many
        self._pace = 1.0  # seconds that a step takes now, against those that are told
        self._met: dict[int, None] = {}  # numbers of rows, the one met last at the end

    def learn(self, rows: int, passes: int, requests: int, phases: dict[str, float], whole: float | None) -> None:
        """phases: seconds of "target", "verify" and "draft" of a step, those that are known; whole: of all of it, None
        where something else came between."""
        goes_on, self._passes = passes == self._passes, passes
        self._same = self._same + 1 if goes_on else 0
        if "target" not in phases or (self._is_new(rows) and self._target.seen(rows) >= SURE):
            return
        self._target.learn(rows, (phases["target"] + phases.get("verify", 0.0)) / self._pace)
        # It is the step before that asked for these drafts: one that begins or ends something has other rows.
        if whole is not None and self._same >= FRESH:
            if self._same < SETTLED or not self.known(passes, requests, ENOUGH):
                saved = self._saved(rows, passes, requests)
                self._usual.setdefault(passes, Curve(COMPARED)).learn(requests, whole / self._pace - saved)
            else:
                shown = whole / max(self._pace * self.seconds(rows, passes, requests), 1e-9)
                self._pace *= min(max(shown, 1 / LARGEST), LARGEST) ** FOLLOWS

    def _is_new(self, rows: int) -> bool:
        """Whether no step had so many rows lately. The first one is slower: see plan.rounded_up."""
        new = rows not in self._met
        self._met.pop(rows, None)
        self._met[rows] = None
        if len(self._met) > RECENT:
            del self._met[next(iter(self._met))]
        return new

    def _saved(self, rows: float, passes: int, requests: int) -> float:
        return self._target.at(rows) - self._target.at(requests * (1 + passes))

    def known(self, passes: int, requests: int, enough: int) -> bool:
        """Whether steps with so many passes and requests have been seen often enough."""
        return passes in self._usual and self._usual[passes].seen(requests) >= enough

    def seconds(self, rows: float, passes: int, requests: int) -> float:
        """Of a step, at the pace of the first ones: to be compared with others."""
        return self._usual_at(passes, requests) + self._saved(rows, passes, requests)

    def _usual_at(self, passes: int, requests: int) -> float:
        seen = sorted(k for k, curve in self._usual.items() if curve.seen(requests)) or sorted(self._usual)
        if not seen:
            return self._target.at(requests * (1 + passes))
        below = max((k for k in seen if k <= passes), default=seen[0])
        above = min((k for k in seen if k >= passes), default=seen[-1])
        low = self._usual[below].at(requests)
        if below == above:
            return low
        return low + (passes - below) / (above - below) * (self._usual[above].at(requests) - low)

    def per_row(self, rows: float) -> float:
        """Seconds that one row more takes the target, around so many; 0 at least."""
        low, high = max(rows / 1.3, 1.0), rows * 1.3
        return max(self._target.at(high) - self._target.at(low), 0.0) / (high - low)
