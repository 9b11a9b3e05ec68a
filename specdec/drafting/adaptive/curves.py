"""A positive function of a count, learned from noisy values: linear between knots, each of which remembers a while.

In plain Python: it is asked for single numbers several times a step, for which arrays are slower.
"""

from bisect import bisect_left, insort
from functools import lru_cache

KNOTS = [2**power for power in range(14)]  # 1 ... 8192
SLOWEST = 0.03  # of the share by which a value still moves a knot that has seen many, where nothing else is said
OUTLIER = 2.0  # values so many times the expected one count as this: a machine stands still now and then
SURE = 3  # values, from which on a knot is believed
# Before that, of an error's share: what is slow at first may be what a shape costs once.
DOWN, UP = 1.0, 0.3


class Curve:
    """Where nothing was seen, the nearest pieces go on in a straight line, above no steeper than in proportion to the
    count; of one knot alone, a flat one.
    """

    def __init__(self, slowest: float = SLOWEST) -> None:
        """slowest: see SLOWEST."""
        self._slowest = slowest
        self._known: list[int] = []  # places of knots that were seen, in order
        self._values = [0.0] * len(KNOTS)
        self._seen = [0.0] * len(KNOTS)

    def __bool__(self) -> bool:
        """Whether anything was seen."""
        return bool(self._known)

    def seen(self, count: float) -> float:
        """How many values the knot nearest to this count has seen."""
        return self._seen[nearest(count)]

    def learn(self, count: float, value: float) -> None:
        """One more value at this count."""
        low, high, share = _between(count)
        parts = [(low, 1 - share), (high, share)] if share < 1 else [(high, 1.0)]
        if min(self._seen[knot] for knot, _ in parts) >= SURE:
            value = min(value, OUTLIER * self.at(count))
        for knot, _ in parts:
            if not self._seen[knot]:
                self._values[knot] = self.at(KNOTS[knot]) if self._known else value
        error = value - sum(self._values[knot] * weight for knot, weight in parts)
        norm = sum(weight * weight for _, weight in parts)
        for knot, weight in parts:
            if not self._seen[knot]:
                insort(self._known, knot)
            early = DOWN if error < 0 else UP
            share = early if self._seen[knot] < SURE else max(1 / (1 + self._seen[knot]), self._slowest)
            self._seen[knot] += weight
            self._values[knot] += share * weight / norm * error

    def at(self, count: float) -> float:
        """The value at a count; 0 where nothing was seen at all."""
        known = self._known
        if len(known) < 2:
            return self._values[known[0]] if known else 0.0
        after = bisect_left(known, count, key=KNOTS.__getitem__)
        after = min(max(after, 1), len(known) - 1)
        (x0, y0), (x1, y1) = ((KNOTS[knot], self._values[knot]) for knot in known[after - 1 : after + 1])
        slope = (y1 - y0) / (x1 - x0)
        if count < x0:
            return max(y0 - slope * (x0 - count), 0.1 * y0)
        if count > x1:
            return y1 + min(max(slope, 0.0), y1 / x1) * (count - x1)
        return y0 + slope * (count - x0)


def nearest(count: float) -> int:
    """The number of the knot nearest to a count."""
    low, high, share = _between(count)
    return high if share >= 0.5 else low


@lru_cache(maxsize=16384)
def _between(count: float) -> tuple[int, int, float]:
    """The knots below and above a count, and how far it is from the one to the other; 1 at a knot."""
    high = min(bisect_left(KNOTS, count), len(KNOTS) - 1)
    if KNOTS[high] <= count or high == 0:
        return max(high - 1, 0), high, 1.0
    low = high - 1
    return low, high, (count - KNOTS[low]) / (KNOTS[high] - KNOTS[low])
