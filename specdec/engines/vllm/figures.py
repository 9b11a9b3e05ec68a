"""What a verify step has to report, on its way to the host: it rides with vLLM's copy of the step's output.

On the host it goes to three places: the counters of /metrics, the log of rows that were no distribution, and, of
requests that asked for it, along with the output to their answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from specdec.engines.vllm.api.route import FIGURES, STEP
from specdec.engines.vllm.bad_rows import BadRowLog
from specdec.engines.vllm.clock import Clock, NoClock
from specdec.engines.vllm.shared import when_on_host
from specdec.engines.vllm.to_host import Arrays, sent
from specdec.metrics.counters import TenantCounters
from specdec.metrics.exact import Looked
from specdec.verify import VerifyOutput

NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Batch:
    """The requests of a verify step, as far as the host knows them. asking: places of those whose answers hold figures;
    tenants: of each, None where none has one.
    """

    request_ids: list[str]
    num_drafts: list[int]
    asking: tuple[int, ...] = ()
    tenants: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Figures:
    """arrays: gives, once the step's output is on the host, accepted drafts [B], bad rows [B], whether the request
    gains no token, being in the middle of its prompt [B], probabilities of acceptance [N], what Looked has. lost:
    drafts whose rows were gone.
    """

    batch: Batch
    looked: np.ndarray  # Looked.drafts
    arrays: Callable[[], Arrays]
    lost: int | None  # None: the last of the arrays [1]

    @classmethod
    def of(
        cls, batch: Batch, out: VerifyOutput, unfinished: Tensor, lost: Tensor | int, looked: Looked | None = None
    ) -> "Figures":
        """Starts the copy. unfinished: bool [B]. lost: int64 [], or known to the host."""
        assert out.bad_row is not None, "asked for repair"
        parts = [out.num_accepted, out.bad_row, unfinished, out.acceptance_probability]
        drafts = NOTHING
        if looked is not None:
            drafts = looked.drafts
            parts += [looked.overlap, looked.entropy, looked.own]
        if isinstance(lost, Tensor):
            return cls(batch, drafts, sent([*parts, lost.view(1)]), None)
        return cls(batch, drafts, sent(parts), lost)

    def landed(self) -> "Landed":
        """Once the step's output is on the host."""
        accepted, bad, unfinished, probability, *rest = self.arrays()
        lost = int(rest.pop()[0]) if self.lost is None else self.lost
        looked = rest or [NOTHING] * 3
        return Landed(self.batch, accepted, bad, unfinished, probability, lost, self.looked, *looked)


@dataclass(frozen=True, eq=False)
class Landed:
    """Figures on the host; unfinished [B]: not 0 where a request gains no token in this step. own: entropies of the
    rows of those that ask, one request's behind the other's.

    A step without drafts, which has little to tell, touches few of the parts: each costs it some microseconds.
    """

    batch: Batch
    num_accepted: np.ndarray  # integers, as float32 where they came that way
    bad: np.ndarray
    unfinished: np.ndarray
    probability: np.ndarray
    lost: int
    looked: np.ndarray
    overlap: np.ndarray
    entropy: np.ndarray
    own: np.ndarray

    @cached_property
    def gains(self) -> np.ndarray:
        """bool [B]: whether a request gains a token."""
        return self.unfinished == 0

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 [B]: drafts of each request."""
        return np.asarray(self.batch.num_drafts, dtype=np.int64)

    @cached_property
    def accepted(self) -> np.ndarray:
        """int64 [B]: accepted drafts of each."""
        return self.num_accepted.astype(np.int64)

    @cached_property
    def of_draft(self) -> np.ndarray:
        """int64 [N]: the request of each draft."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def count(self, counters: TenantCounters) -> None:
        """Adds the step to the counters."""
        batch = self.batch
        for one, mine in [(counters.own, None)] if batch.tenants is None else counters.groups(batch.tenants):
            one.record(batch.num_drafts, self.num_accepted, self.probability, self.unfinished, mine)
            if len(self.looked):
                self._count_looked(one, self.gains if mine is None else self.gains & mine)
        if self.lost:
            counters.own.record_lost(self.lost)

    def _count_looked(self, counters: Any, mine: np.ndarray) -> None:
        owners = self.of_draft[self.looked]
        positions = self.looked - (np.cumsum(self.counts) - self.counts)[owners]
        reached = mine[owners] & (self.accepted[owners] >= positions)
        counters.record_exact(
            positions[reached], self.overlap[reached], self.entropy[reached],
            (self.accepted[owners] > positions)[reached],
        )  # fmt: skip

    def step(self, phases: list[tuple[str, float]]) -> dict[str, Any]:
        """Fields of specdec.drafting.adaptive.Step."""
        return {
            "request_ids": self.batch.request_ids, "counts": self.batch.num_drafts,
            "probability": self.probability.tolist(), "phases": dict(phases),
        }  # fmt: skip

    def entries(self) -> dict[str, dict[str, Any]]:
        """By request that asked: how many drafts it had, how many were accepted, the probability of acceptance of each
        that was reached, and the target's entropy for each token that it gains.
        """
        found: dict[str, dict[str, Any]] = {}
        ends, at = np.cumsum(self.counts), 0
        for place in self.batch.asking:
            drafts, accepted = int(self.counts[place]), int(self.accepted[place])
            mine = self.probability[ends[place] - drafts : ends[place]][: accepted + 1]
            entropy = self.own[at : at + accepted + 1]
            at += drafts + 1
            if self.gains[place]:
                found[self.batch.request_ids[place]] = {
                    "drafts": drafts, "accepted": accepted, "expected": mine.tolist(), "entropy": entropy.tolist()
                }  # fmt: skip
        return found


class Reporter:
    """Takes the figures of each step where they belong. take: gives the last step's, once; None where it has none.

    counters None: there are none to be. gauges: by name, what else is asked of the worker with every step. switches:
    what else works for the counters alone; `count` tells them whether to.
    """

    def __init__(self, take: Callable[[], Figures | None], counters: TenantCounters | None, clock: Clock | None = None):
        self._take, self._counters, self._bad_rows = take, counters, BadRowLog()
        self._own_counters = counters  # also while nothing is counted
        self.clock: Clock = clock or NoClock()
        self.carries = False  # whether steps are to be laid beside their outputs, for the scheduler
        self.gauges: dict[str, Callable[[], float]] = {}
        self.switches: list[Callable[[bool], object]] = []

    def count(self, on: bool) -> None:
        """Whether steps are counted from now on."""
        self._counters = self._own_counters if on else None
        for switch in self.switches:
            switch(self._counters is not None)

    def report_with(self, output: Any) -> None:
        """output: what the runner's `sample_tokens` returned for the last step."""
        figures = self._take()
        if figures is not None:
            when_on_host(output, lambda step: self.report(figures, step))

    def report(self, figures: Figures, output: Any) -> None:
        """output: the step's, on the host by now."""
        landed = figures.landed()
        self._bad_rows.report(landed.bad.tolist(), landed.batch.request_ids)
        if landed.batch.asking:
            setattr(output, FIGURES, landed.entries())
        phases = self.clock.take()
        if self.carries:
            setattr(output, STEP, landed.step(phases))
        if self._counters is not None:
            landed.count(self._counters)
            self._count_worker(self._counters, phases)

    def _count_worker(self, counters: TenantCounters, phases: list[tuple[str, float]]) -> None:
        for phase, seconds in phases:
            counters.own.record_phase(phase, seconds)
        for gauge, ask in self.gauges.items():
            counters.own.set(gauge, ask())
