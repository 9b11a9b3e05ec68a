"""What a verify step has to report, on its way to the host: it rides with vLLM's copy of the step's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.engines.vllm.bad_rows import BadRowLog
from specdec.engines.vllm.shared import when_on_host
from specdec.metrics.counters import StepCounters
from specdec.verify import VerifyOutput


@dataclass(frozen=True, eq=False)
class Figures:
    """on_host: float32 [2 B + N + 1], complete once the step's output is: accepted drafts [B], bad rows [B],
    probabilities of acceptance [N], drafts whose rows were gone [1]. float32 holds these integers exactly."""

    request_ids: list[str]
    num_drafts: list[int]
    on_host: Tensor

    @classmethod
    def of(cls, request_ids: list[str], num_drafts: list[int], out: VerifyOutput, lost: Tensor | int) -> "Figures":
        """Starts the copy. lost: int64 [], or known to the host."""
        assert out.bad_row is not None, "asked for repair"
        last = lost.view(1) if isinstance(lost, Tensor) else out.num_accepted.new_full((1,), lost)
        parts = (out.num_accepted, out.bad_row, out.acceptance_probability, last)
        packed = torch.cat([part.to(torch.float32) for part in parts])
        return cls(list(request_ids), num_drafts, packed.to("cpu", non_blocking=True))


class Reporter:
    """Takes the figures of each step to the counters (None: metrics are off) and to the log.

    take: what gives the last step's figures, once; None where it has none.
    """

    def __init__(self, take: Callable[[], Figures | None], counters: StepCounters | None):
        self._take, self._counters, self._bad_rows = take, counters, BadRowLog()

    def report_with(self, output: Any) -> None:
        """output: what the runner's `sample_tokens` returned for the last step."""
        figures = self._take()
        if figures is not None:
            when_on_host(output, lambda _: self.report(figures))

    def report(self, figures: Figures) -> None:
        """Only once the step's output is on the host."""
        counts = np.asarray(figures.num_drafts, dtype=np.int64)
        batch = len(counts)
        parts = np.split(figures.on_host.numpy(), [batch, 2 * batch, 2 * batch + counts.sum()])
        accepted, bad, probability, lost = parts
        self._bad_rows.report(bad.astype(int).tolist(), figures.request_ids)
        if self._counters is not None and counts.any():
            self._counters.record(counts, accepted.astype(int), probability)
            if lost[0]:
                self._counters.record_lost(int(lost[0]))
