"""What a step takes, in seconds.

    seconds(rows, passes, requests) =
        (target(rows) + head(rows) + passes · pass(requests) + rest(rows)) · whole(passes, requests)

rows: of the target's forward, which are verified too: a request's drafts and one more. The head always goes over all
rows, so that its cache is whole; each draft is one more pass over the requests. The rest is what the engine does around
it: scheduling, messages, the host's share of everything. It goes by rows, for it is the next step that has the drafts
which a step asks for: so what a number of drafts takes is told from steps between two numbers as well. What the sum
leaves out is in the last factor: how long steps with so many passes took, against it.
"""

from specdec.drafting.adaptive.curves import Curve


class Costs:
    """Learned from steps that go over no prompt."""

    def __init__(self) -> None:
        self._target, self._head, self._pass, self._rest = Curve(), Curve(), Curve(), Curve()
        self._whole: dict[int, Curve] = {}

    def learn(self, rows: int, passes: int, requests: int, phases: dict[str, float], whole: float | None) -> None:
        """phases: seconds of "target", "verify" and "draft" of a step, those that are known; whole: of all of it, None
        where something else came between."""
        if "target" in phases:
            self._target.learn(rows, phases["target"] + phases.get("verify", 0.0))
        if "draft" in phases:
            if passes == 0:
                self._head.learn(rows, phases["draft"])
            else:
                head = self._head.at(rows) if self._head else phases["draft"] / (passes + 1)
                self._pass.learn(requests, max(phases["draft"] - head, 0.0) / passes)
        if whole is not None and phases:
            self._rest.learn(rows, max(whole - sum(phases.values()), 0.0))
            self._whole.setdefault(passes, Curve()).learn(requests, whole / self._sum(rows, passes, requests))

    def known(self, passes: int, requests: int, enough: int) -> bool:
        """Whether steps with so many requests have been seen often enough, with drafts (passes > 0) or without."""
        return (self._pass if passes else self._head).seen(requests) >= enough and bool(self._target)

    def seconds(self, rows: float, passes: int, requests: int) -> float:
        """Of a step."""
        whole = self._whole.get(passes)
        return self._sum(rows, passes, requests) * (whole.at(requests) if whole else 1.0)

    def _sum(self, rows: float, passes: int, requests: int) -> float:
        work = self._target.at(rows) + self._head.at(rows) + passes * self._pass.at(requests)
        return work + self._rest.at(rows)

    def per_row(self, rows: float) -> float:
        """Seconds that one row more takes, around so many; 0 at least."""
        step = max(1.0, 0.1 * rows)
        low, high = max(rows - step, 1.0), rows + step
        more = self._target.at(high) + self._head.at(high) - self._target.at(low) - self._head.at(low)
        return max(more, 0.0) / (high - low)
