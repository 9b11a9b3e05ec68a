"""The numbers of drafts that make the most tokens per second.

A step with so many passes of the head gives every request that many drafts at most. A request gets fewer where its next
draft is not worth its row: where the chance that it is accepted, with all before it, buys less than the tokens that the
row's time would buy otherwise. Of all numbers of passes the one with the most expected tokens per expected second wins.

What is not tried is not known. So where steps of this many requests are new, a few are spent with all drafts and with
none; and from then on every number has its turn, a small share of the time, to keep what it shows fresh.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from specdec.drafting.adaptive.acceptance import RunningAcceptance
from specdec.drafting.adaptive.costs import SETTLED, Costs
from specdec.drafting.adaptive.curves import nearest

# Steps, after which the plan is made anew: twice as many each time that nothing came of it, up to the second; at once
# where the number of requests has changed much.
EVERY, SELDOM = 8, 32
BETTER = 1.01  # what another number of passes must be expected to gain
CUTTING = 1.03  # what leaving drafts out must be: what it saves is told by small differences between what steps take
TRIES = 3  # steps of each kind where the number of requests is new
PATIENCE = 4  # times as many are spent at most: there may be none that tells something
CROWD, FEWER = 16, 4  # with more requests than that, one step in so many says enough about acceptance
TRIAL = SETTLED  # steps of a trial
RARELY = 16  # steps between trials at least
# Of the time that may be lost by trying what is expected to be worse: at first, with a number of requests that is new,
# and from NEW / SHARE steps with it on.
EARLY, SHARE, NEW = 0.02, 0.005, 4.0


@dataclass(frozen=True)
class Step:
    """What came of a step. phases: see Costs.learn. request_ids, counts, probability: see RunningAcceptance."""

    rows: int
    passes: int
    requests: int
    request_ids: list[str]
    counts: list[int]
    probability: list[float]
    phases: dict[str, float] = field(default_factory=dict)
    plain: bool = True  # little of prompts in it, or nothing


class Planner:
    """most: drafts of a request at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.costs, self.acceptance = Costs(), RunningAcceptance(most)
        self.passes = most  # of the head in the step that was planned last
        self._choice = _Choice(most, {}, {most: 0.0}, {most: 0.0})
        self._cuts: dict[str, int] = {}
        self._age, self._size, self._every = EVERY, 0, EVERY
        self._budget, self._turn, self._steps = 0.0, 0, 0
        self._trying, self._left = most, 0  # the number of passes that is tried, for so many steps yet
        self._tried: Counter[tuple[int, int]] = Counter()  # by passes, and requests
        self._met: Counter[int] = Counter()  # steps, by requests

    def learn(self, step: Step, whole: float | None = None) -> None:
        """Of every step that is over, in order. whole: see Costs.learn."""
        self._steps += 1
        if step.requests <= CROWD or self._steps % FEWER == 0:
            self.acceptance.learn(step.request_ids, step.counts, step.probability)
        if step.plain:
            self.costs.learn(step.rows, step.passes, step.requests, step.phases, whole)

    def admit(self, request_id: str, kind: int) -> None:
        """A request begins; kind: how it is sampled, which says how its drafts may fare before any of them did."""
        self.acceptance.admit(request_id, kind)

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self.acceptance.forget(request_id)

    def count(self, request_id: str) -> int:
        """Drafts that a request is to have of those that the step planned last draws."""
        return min(self._cuts.get(request_id, self.passes), self.passes)

    def plan(self, request_ids: list[str]) -> None:
        """Before each step, for its requests that have no fixed number of drafts: settles `passes` and `count`."""
        requests = len(request_ids)
        if not requests:
            return
        self._age += 1
        like_before = 0.8 <= requests / max(self._size, 1) <= 1.25
        if self._age >= self._every or not like_before:
            before, self._choice = self._choice.passes, self._settled(request_ids)
            calm = like_before and self._choice.passes == before
            self._age, self._size, self._every = 0, requests, min(2 * self._every, SELDOM) if calm else EVERY
        tried = self._trial(requests)
        if tried is None:
            self.passes, self._cuts = self._choice.passes, self._choice.cuts
        else:
            self.passes, self._cuts = tried, {}

    def _settled(self, request_ids: list[str]) -> "_Choice":
        requests = len(request_ids)
        reach = np.cumprod(self.acceptance.of(request_ids), axis=1)  # [B, most]: accepted, with all before it
        tokens = [float(requests), *(requests + np.cumsum(reach.sum(0))).tolist()]
        seconds = [self.costs.seconds(requests * (1 + k), k, requests) for k in range(self._most + 1)]
        rates: dict[int, tuple[float, dict[str, int]]] = {
            k: (tokens[k] / max(seconds[k], 1e-9), {}) for k in range(self._most + 1)
        }
        # Cutting the drafts of one request alone is another number of passes, which has its own turn.
        for k in range(1, self._most + 1) if requests > 1 else ():
            rate, left, cuts = self._cut(request_ids, reach, k, rates[k][0])
            if cuts and rate > CUTTING * rates[left][0]:
                rates[left] = rate, cuts
        best, now = max(rates, key=lambda k: rates[k][0]), self._choice.passes
        if rates[best][0] <= BETTER * rates[now][0]:
            best = now
        return _Choice(best, rates[best][1], {k: rate for k, (rate, _) in rates.items()}, dict(enumerate(seconds)))

    def _cut(
        self, request_ids: list[str], reach: np.ndarray, passes: int, rate: float
    ) -> tuple[float, int, dict[str, int]]:
        """With drafts left out that are not worth their row: tokens per second, passes, drafts of each request."""
        requests = len(request_ids)
        drafts = reach[:, :passes]
        worth = int(np.count_nonzero(drafts >= rate * self.costs.per_row(requests * (1 + passes))))
        kept = min(rounded_up(requests + worth) - requests, drafts.size) if worth else 0
        if kept == drafts.size:
            return rate, passes, {}
        # A request's later drafts are reached less often than its earlier ones: the best are the first of each.
        best = np.argsort(-drafts, axis=None, kind="stable")[:kept]
        counts = np.bincount(best // passes, minlength=requests)
        left = int(counts.max(initial=0))
        seconds = self.costs.seconds(requests + kept, left, requests)
        tokens = requests + float(drafts.flat[best].sum())
        return tokens / max(seconds, 1e-9), left, dict(zip(request_ids, counts.tolist(), strict=True))

    def _trial(self, requests: int) -> int | None:
        """A number of passes that something is to be learned of; None: none is due."""
        size = nearest(requests)
        for passes in (self._most, 0):
            if not self.costs.known(passes, requests, TRIES) and self._tried[passes, size] < PATIENCE * TRIES:
                self._tried[passes, size] += 1
                return passes
        if self._left:
            self._left -= 1
            return self._trying
        best = self._choice.passes
        usual = self._choice.seconds[best]
        tried = self._turn % (self._most + 1)
        rates = self._choice.rates
        lost = TRIAL * self._choice.seconds[tried] * max(1 - rates[tried] / max(rates[best], 1e-9), 0.0)
        self._met[size] += 1
        share = min(max(SHARE, NEW / self._met[size]), EARLY)
        price = lost + share * RARELY * usual
        self._budget = min(self._budget + share * usual, max(4 * usual, price))
        if tried == best:
            self._turn += 1
            return None
        if self._budget < price:
            return None
        self._budget -= price
        self._turn += 1
        self._trying, self._left = tried, TRIAL - 1
        return tried


def rounded_up(rows: int) -> int:
    """To a number of rows that others are rounded to as well, an eighth more at most.

    What runs a step keeps something for each number of rows: vLLM on a CPU a few compiled multiplications, on a GPU
    CUDA graphs, into the next larger of which the rows are padded.
    """
    grain = max(1, (1 << rows.bit_length()) // 16)
    return -(-rows // grain) * grain


@dataclass(frozen=True)
class _Choice:
    """passes; cuts: drafts of requests that get fewer; by passes: tokens per second and seconds, as expected."""

    passes: int
    cuts: dict[str, int]
    rates: dict[int, float]
    seconds: dict[int, float]
