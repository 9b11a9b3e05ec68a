"""A small memory-mapped file of numbers, written by one process and read by another.

The worker runs beside the process that answers /metrics, so plain Python counters would never be seen. Each worker
owns its files (float64 cells, written in place by one process only; an aligned 8-byte store is not torn), and the
exporter adds up all files it finds. A restarted worker starts new files: sums of counters never run backwards. A gauge
is what holds now, so it counts while its file's owner lives, who holds a lock on it.
"""

import fcntl
import json
import os
import uuid
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np

from specdec.metrics.buckets import ENTROPY, SECONDS

MAX_POSITIONS = 16  # draft positions told apart; vLLM heads are served with at most a handful
EVERY = 64  # verify steps, of which one is looked at exactly (exact.py)
PHASES = ("target", "verify", "draft")
FIELDS = {
    "steps": 1,
    "undrafted_steps": 1,
    "draft_tokens": MAX_POSITIONS,
    "reached": MAX_POSITIONS,
    "accepted": MAX_POSITIONS,
    "recovered": MAX_POSITIONS,
    "bonus": MAX_POSITIONS + 1,  # index = the request's drafts in that step
    "expected_sum": MAX_POSITIONS,
    "exact_sum": MAX_POSITIONS,
    "exact_rows": MAX_POSITIONS,
    "tokens_per_step": MAX_POSITIONS + 2,  # index = tokens emitted by one request in one step
    "lost_rows": 1,
    "entropy": len(ENTROPY) + 1,
    "entropy_sum": 1,
    "entropy_reached": len(ENTROPY) + 1,
    "entropy_accepted": len(ENTROPY) + 1,
    **{f"{phase}_seconds": len(SECONDS) + 1 for phase in PHASES},
    **{f"{phase}_seconds_sum": 1 for phase in PHASES},
}
GAUGES = {"draft_rows_bytes": 1, "steering_programs": 1, "drafts_per_step": 1}
MEANS = ("drafts_per_step",)  # of gauges: of several workers (data parallel) the mean is told, of others the sum
_COUNTS = FIELDS | GAUGES
BEGINS = dict(zip(_COUNTS, accumulate([0, *_COUNTS.values()]), strict=False))  # where each begins in the cells
SIZE = sum(_COUNTS.values())
NUM_GAUGES = sum(GAUGES.values())  # the last cells
DIRECTORY_VARIABLE = "SPECDEC_METRICS_DIR"
Counts = dict[str, list[float]]  # field -> its cells, as plain values
Labels = tuple[tuple[str, str], ...]  # sorted


def layout(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Views [n] of each field in the flat cells [SIZE]."""
    return {name: cells[BEGINS[name] : BEGINS[name] + count] for name, count in _COUNTS.items()}


class CellFile:
    """cells [SIZE] of one worker under one set of labels. directory None: kept in this process only."""

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self.path: Path | None = None
        if directory is None:
            self.cells = np.zeros(SIZE)
            return
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.cells"
        new = self.path.with_suffix(".new")
        # As a plain array: each view of a memmap, and each number taken from one, costs a microsecond more.
        self.cells = np.memmap(new, np.float64, "w+", shape=(SIZE,)).view(np.ndarray)
        self._lock = new.open("rb")  # for as long as this process lives
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.with_suffix(".json").write_text(json.dumps(labels))
        os.replace(new, self.path)


def read_all(directory: Path) -> dict[Labels, np.ndarray]:
    """labels -> cells [SIZE] of all worker files in the directory, added up; MEANS over those whose owners live."""
    sums: dict[Labels, np.ndarray] = {}
    living: Counter[Labels] = Counter()
    for path in sorted(directory.glob("*.cells")):
        labels = tuple(sorted(json.loads(path.with_suffix(".json").read_text()).items()))
        with path.open("rb") as file:
            cells = np.fromfile(file, np.float64)
            if cells.size != SIZE:  # another version's
                continue
            if _owned(file.fileno()):
                living[labels] += 1
            else:
                cells[-NUM_GAUGES:] = 0
        sums[labels] = sums.get(labels, np.zeros(SIZE)) + cells
    for labels, cells in sums.items():
        views = layout(cells)
        for gauge in MEANS:
            views[gauge] /= max(living[labels], 1)
    return sums


def _owned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
