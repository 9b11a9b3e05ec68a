"""What a verify step has to report, on its way to the host: it rides with vLLM's copy of the step's output."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.engines.vllm.shared import report_bad_rows
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
    def of(cls, request_ids: list[str], num_drafts: list[int], out: VerifyOutput, lost: Tensor | None) -> "Figures":
        """Starts the copy. lost: int64 []; None: none."""
        assert out.bad_row is not None, "asked for repair"
        if lost is None:
            lost = out.num_accepted.new_zeros(1)
        parts = (out.num_accepted, out.bad_row, out.acceptance_probability, lost.view(1))
        packed = torch.cat([part.to(torch.float32) for part in parts])
        return cls(request_ids, num_drafts, packed.to("cpu", non_blocking=True))

    def report(self, counters: StepCounters | None) -> None:
        """Only once the step's output is on the host."""
        batch, counts = len(self.num_drafts), np.asarray(self.num_drafts)
        accepted, bad, probability, lost = np.split(self.on_host.numpy(), [batch, 2 * batch, 2 * batch + counts.sum()])
        report_bad_rows(bad.astype(int).tolist(), self.request_ids)
        if counters is not None and counts.any():
            counters.record(counts, accepted.astype(int), probability)
            if lost[0]:
                counters.record_lost(int(lost[0]))

    def report_with(self, output: Any, counters: StepCounters | None) -> None:
        """output: the step's AsyncOutput. Its copy waits for all that came before, and `get_output` for its copy."""

        def get_output_and_report() -> Any:
            # The class's own again: otherwise the output would hold itself, and its memory, until a full collection.
            del output.get_output
            found = output.get_output()
            self.report(counters)
            return found

        output.get_output = get_output_and_report
