"""Prometheus export of the counters: one collector that reads the workers' files at each scrape.

PromQL, to be read with the metric names below:
  acceptance rate by position
    rate(specdec_accepted_tokens_total[5m]) / rate(specdec_reached_draft_tokens_total[5m])
  what it is expected to be
    rate(specdec_expected_acceptance_sum_total[5m]) / rate(specdec_reached_draft_tokens_total[5m])
  acceptance length
    rate(specdec_tokens_per_step_sum[5m]) / rate(specdec_tokens_per_step_count[5m])
A lasting gap between the first two means that the stored draft distribution is not the one that sampled.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from specdec.metrics.counters import DIRECTORY_VARIABLE, MAX_POSITIONS, SIZE, layout

BY_POSITION = {
    "draft_tokens": ("specdec_draft_tokens", "Draft tokens sent to verification, by position in the draft."),
    "reached": ("specdec_reached_draft_tokens", "Draft tokens whose predecessors were all accepted."),
    "accepted": ("specdec_accepted_tokens", "Draft tokens accepted, by position in the draft."),
    "expected_sum": (
        "specdec_expected_acceptance_sum",
        "Sum of min(1, p/q) over reached draft tokens: an unbiased estimate of their expected acceptance.",
    ),
}
PLAIN = {
    "steps": ("specdec_verify_steps", "Verify steps of one request with at least one draft token."),
    "lost_rows": ("specdec_lost_draft_rows", "Draft tokens verified as one-hot because their draft rows were gone."),
}


def read_all(directory: Path) -> dict[tuple[tuple[str, str], ...], np.ndarray]:
    """labels -> summed cells [SIZE] of every worker file in the directory."""
    sums: dict[tuple[tuple[str, str], ...], np.ndarray] = {}
    for path in sorted(directory.glob("*.cells")):
        labels = tuple(sorted(json.loads(path.with_suffix(".json").read_text()).items()))
        cells = np.fromfile(path, np.float64)
        if cells.size == SIZE:
            sums[labels] = sums.get(labels, np.zeros(SIZE)) + cells
    return sums


class SpecdecCollector(Collector):
    """Yields nothing while no worker of ours has written a file, so an unused plugin leaves /metrics as it was."""

    def __init__(self, directory: Path | None = None):
        self._directory = directory

    def describe(self) -> list:
        return []  # names are known only once labels are; registering must not scrape

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        directory = self._directory or Path(os.environ.get(DIRECTORY_VARIABLE, ""))
        sums = read_all(directory) if directory.parts and directory.is_dir() else {}
        if not sums:
            return
        names = [name for name, _ in next(iter(sums))]
        for field, (metric, text) in BY_POSITION.items():
            family = CounterMetricFamily(metric, text, labels=[*names, "position"])
            for labels, cells in sums.items():
                views = layout(cells)
                for position in range(_positions_in_use(views)):
                    family.add_metric([v for _, v in labels] + [str(position)], views[field][position])
            yield family
        for field, (metric, text) in PLAIN.items():
            family = CounterMetricFamily(metric, text, labels=names)
            for labels, cells in sums.items():
                family.add_metric([v for _, v in labels], layout(cells)[field][0])
            yield family
        yield _tokens_per_step(names, sums)


def _positions_in_use(views: dict[str, np.ndarray]) -> int:
    used = np.flatnonzero(views["draft_tokens"])
    return int(used[-1]) + 1 if used.size else 0


def _tokens_per_step(names: list[str], sums: dict[tuple[tuple[str, str], ...], np.ndarray]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "specdec_tokens_per_step", "Tokens one request gained in one verify step.", labels=names
    )
    for labels, cells in sums.items():
        counts = layout(cells)["tokens_per_step"]
        cumulative = np.cumsum(counts)
        buckets = [(str(float(n)), cumulative[n]) for n in range(1, MAX_POSITIONS + 2)]
        total = float((np.arange(counts.size) * counts).sum())
        family.add_metric([v for _, v in labels], [*buckets, ("+Inf", cumulative[-1])], total)
    return family
