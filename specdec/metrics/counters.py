"""Counters of the verify step, kept in a small memory-mapped file so that another process can read them.

The worker runs beside the process that answers /metrics, so plain Python counters would never be seen. Each worker
owns one file (float64 cells, written in place by one process only; an aligned 8-byte store is not torn), and the
exporter adds up all files it finds. A restarted worker starts a new file: sums never run backwards.
"""

import json
import os
import uuid
from pathlib import Path

import numpy as np

MAX_POSITIONS = 16  # draft positions told apart; vLLM heads are served with at most a handful
FIELDS = {
    "steps": 1,
    "draft_tokens": MAX_POSITIONS,
    "reached": MAX_POSITIONS,
    "accepted": MAX_POSITIONS,
    "expected_sum": MAX_POSITIONS,
    "tokens_per_step": MAX_POSITIONS + 2,  # index = tokens emitted by one request in one step
    "lost_rows": 1,
}
SIZE = sum(FIELDS.values())
DIRECTORY_VARIABLE = "SPECDEC_METRICS_DIR"
Counts = dict[str, list[float]]  # field -> its cells, as plain values


def layout(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Views [n] of each field in the flat cells [SIZE]."""
    views, start = {}, 0
    for name, count in FIELDS.items():
        views[name] = cells[start : start + count]
        start += count
    return views


class StepCounters:
    """What the verify steps of one worker have done so far.

    directory: where the file goes; None keeps the counts in this process only.
    labels: e.g. {"model_name": ...}, written beside the file for the exporter.
    """

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self.path: Path | None = None
        if directory is None:
            cells = np.zeros(SIZE)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            self.path = directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.cells"
            cells = np.memmap(self.path.with_suffix(".new"), np.float64, "w+", shape=(SIZE,))
            self.path.with_suffix(".json").write_text(json.dumps(labels))
            os.replace(self.path.with_suffix(".new"), self.path)
        self._positions = np.arange(MAX_POSITIONS)
        self.views = layout(cells)

    def record(self, num_drafts: np.ndarray, num_accepted: np.ndarray, acceptance: np.ndarray) -> None:
        """One verify step of the requests that had drafts.

        num_drafts [B] int, num_accepted [B] int: drafts and accepted drafts per request; a request without drafts
        is not counted. acceptance [N] float: VerifyOutput.acceptance_probability, request-major; not a number where
        a draft was not reached.
        """
        views, count = self.views, min(int(num_drafts.max(initial=0)), MAX_POSITIONS)
        if count == 0:
            return
        with_drafts = num_drafts > 0
        positions = self._positions[:count]
        drafted = num_drafts[:, None] > positions
        views["steps"][0] += with_drafts.sum()
        views["draft_tokens"][:count] += drafted.sum(0)
        views["accepted"][:count] += (num_accepted[:, None] > positions).sum(0)
        views["reached"][:count] += (drafted & (num_accepted[:, None] >= positions)).sum(0)
        grid = np.zeros((len(num_drafts), int(num_drafts.max())))
        grid[num_drafts[:, None] > np.arange(grid.shape[1])] = np.nan_to_num(acceptance)
        views["expected_sum"][:count] += grid[:, :count].sum(0)
        emitted = np.minimum(num_accepted[with_drafts] + 1, MAX_POSITIONS + 1)
        views["tokens_per_step"][: MAX_POSITIONS + 2] += np.bincount(emitted, minlength=MAX_POSITIONS + 2)

    def record_lost(self, count: int) -> None:
        """Draft tokens verified as one-hot because their draft rows were gone (see engines/vllm/drafts.py)."""
        self.views["lost_rows"][0] += count
