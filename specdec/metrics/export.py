"""Prometheus export of the counters: one collector that reads the workers' files at each scrape.

A metric's text, which /metrics shows too, says what it is; beside it stands the PromQL that answers its question. Names
and units are Prometheus': `_total` counts, seconds, bytes; entropy is in nats.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from specdec.metrics.buckets import ENTROPY, SECONDS, ranges
from specdec.metrics.cells import DIRECTORY_VARIABLE, EVERY, MAX_POSITIONS, PHASES, Labels, layout, read_all


@dataclass(frozen=True)
class Told:
    """One metric. label: what tells its cells apart; "" for a single number."""

    name: str
    text: str
    label: str = ""


# By field of cells.py.
COUNTERS = {
    # How much is drafted: rate(specdec_draft_tokens_total[5m])
    "draft_tokens": Told("specdec_draft_tokens", "Draft tokens sent to verification, by position.", "position"),
    # Acceptance by position: rate(specdec_accepted_tokens_total[5m]) / rate(specdec_reached_draft_tokens_total[5m])
    "reached": Told("specdec_reached_draft_tokens", "Draft tokens whose predecessors were all accepted.", "position"),
    "accepted": Told("specdec_accepted_tokens", "Draft tokens accepted, by position in the draft.", "position"),
    # Where steps end: rate(specdec_recovered_tokens_total[5m]) / ignoring(position) group_left
    #   sum without(position) (rate(specdec_recovered_tokens_total[5m]) + rate(specdec_bonus_tokens_total[5m]))
    "recovered": Told(
        "specdec_recovered_tokens", "Tokens drawn from the residual, by position of the rejected draft.", "position"
    ),
    "bonus": Told(
        "specdec_bonus_tokens", "Tokens drawn from the target behind drafts all accepted, by their number.", "position"
    ),
    # What acceptance is expected to be:
    #   rate(specdec_expected_acceptance_sum_total[5m]) / rate(specdec_reached_draft_tokens_total[5m])
    # It estimates the same number as the observed one: a lasting gap is a bug, or a draft row that is not the one which
    # sampled.
    "expected_sum": Told(
        "specdec_expected_acceptance_sum",
        "Sum of min(1, p/q) over reached draft tokens: an unbiased estimate of their expected acceptance.",
        "position",
    ),
    # The same again, exactly:
    #   rate(specdec_exact_acceptance_sum_total[1h]) / rate(specdec_exact_acceptance_rows_total[1h])
    # It alone shows a wrongly stored q, since it does not look at the token that was drawn.
    "exact_sum": Told(
        "specdec_exact_acceptance_sum",
        f"Sum of the exact acceptance sum_v min(p(v), q(v)) over reached drafts of one step in {EVERY} (token rule).",
        "position",
    ),
    "exact_rows": Told("specdec_exact_acceptance_rows", "How many drafts that sum is over.", "position"),
    # Acceptance by entropy, the health figure of RL: a policy that loses entropy should be accepted more, not less.
    #   rate(specdec_entropy_accepted_tokens_total[15m]) / rate(specdec_entropy_reached_draft_tokens_total[15m])
    "entropy_reached": Told(
        "specdec_entropy_reached_draft_tokens",
        f"Reached drafts of one step in {EVERY}, by the target's entropy there, in nats.",
        "entropy",
    ),
    "entropy_accepted": Told("specdec_entropy_accepted_tokens", "Those accepted.", "entropy"),
    # Acceptance length: 1 + sum without(position) (rate(specdec_accepted_tokens_total[5m]))
    #   / rate(specdec_verify_steps_total[5m])
    "steps": Told("specdec_verify_steps", "Verify steps of one request with at least one draft token."),
    # Share of steps without drafts: rate(specdec_undrafted_steps_total[5m])
    #   / (rate(specdec_undrafted_steps_total[5m]) + rate(specdec_verify_steps_total[5m]))
    "undrafted_steps": Told("specdec_undrafted_steps", "Steps in which one request got a token without any drafts."),
    # Should not grow: rate(specdec_lost_draft_rows_total[5m])
    "lost_rows": Told("specdec_lost_draft_rows", "Draft tokens verified as one-hot because their rows were gone."),
}
GAUGES = {
    # specdec_draft_rows_bytes
    "draft_rows_bytes": Told("specdec_draft_rows_bytes", "Memory held for the logits that drafts were drawn from."),
    # specdec_steering_programs
    "steering_programs": Told("specdec_steering_programs", "Different steering programs of the running requests."),
    # avg_over_time(specdec_drafts_per_step[5m])
    "drafts_per_step": Told(
        "specdec_drafts_per_step", "Drafts per request that the last step asked the head for: the mean over engines."
    ),
}


class SpecdecCollector(Collector):
    """Yields nothing while no worker of ours has written a file, so an unused plugin leaves /metrics as it was."""

    def __init__(self, directory: Path | None = None):
        self._directory = directory

    def describe(self) -> list:
        return []  # names are known only once labels are; registering must not scrape

    def collect(self) -> Iterator[Metric]:
        directory = self._directory or Path(os.environ.get(DIRECTORY_VARIABLE, ""))
        sums = read_all(directory) if directory.parts and directory.is_dir() else {}
        if not sums:
            return
        names = sorted({name for labels in sums for name, _ in labels})
        rows = [([dict(labels).get(name, "") for name in names], layout(cells)) for labels, cells in sums.items()]
        yield from _counters(names, rows)
        yield from _gauges(names, _of_the_worker(sums, names))
        yield _tokens_per_step(names, rows)
        yield _entropy(names, rows)
        yield _phases(names, _of_the_worker(sums, names))


Row = tuple[list[str], dict[str, np.ndarray]]  # values of the labels, and cells by field


def _of_the_worker(sums: dict[Labels, np.ndarray], names: list[str]) -> list[Row]:
    """What does not belong to a tenant."""
    own = {labels: cells for labels, cells in sums.items() if not dict(labels).get("tenant")}
    return [([dict(labels).get(name, "") for name in names], layout(cells)) for labels, cells in own.items()]


def _counters(names: list[str], rows: list[Row]) -> Iterator[CounterMetricFamily]:
    for field, told in COUNTERS.items():
        family = CounterMetricFamily(told.name, told.text, labels=[*names, told.label] if told.label else names)
        for labels, views in rows:
            if not told.label:
                family.add_metric(labels, views[field][0])
                continue
            for place, value in zip(_places(field, told.label, views), views[field], strict=False):
                family.add_metric([*labels, place], value)
        yield family


def _places(field: str, label: str, views: dict[str, np.ndarray]) -> list[str]:
    """Names of a field's first cells, as many as are in use."""
    if label == "entropy":
        return ranges(ENTROPY)
    used = np.flatnonzero(views["draft_tokens"])
    count = int(used[-1]) + 1 if used.size else 0
    return [str(position) for position in range(count + (field == "bonus" and count > 0))]


def _gauges(names: list[str], rows: list[Row]) -> Iterator[GaugeMetricFamily]:
    for field, told in GAUGES.items():
        gauge = GaugeMetricFamily(told.name, told.text, labels=names)
        for labels, views in rows:
            gauge.add_metric(labels, views[field][0])
        yield gauge


def _tokens_per_step(names: list[str], rows: list[Row]) -> HistogramMetricFamily:
    """Most steps that gain everything: specdec_tokens_per_step_bucket; its mean is the acceptance length:
    rate(specdec_tokens_per_step_sum[5m]) / rate(specdec_tokens_per_step_count[5m])
    """
    family = HistogramMetricFamily(
        "specdec_tokens_per_step", "Tokens one request gained in one verify step.", labels=names
    )
    for labels, views in rows:
        counts = views["tokens_per_step"]
        total = float((np.arange(counts.size) * counts).sum())
        family.add_metric(labels, _cumulative([float(n) for n in range(1, MAX_POSITIONS + 1)], counts[1:]), total)
    return family


def _entropy(names: list[str], rows: list[Row]) -> HistogramMetricFamily:
    """How sure the target is: histogram_quantile(0.5, rate(specdec_target_entropy_nats_bucket[15m])), and its mean
    rate(specdec_target_entropy_nats_sum[15m]) / rate(specdec_target_entropy_nats_count[15m])
    """
    family = HistogramMetricFamily(
        "specdec_target_entropy_nats",
        f"Entropy of what reached drafts of one step in {EVERY} were verified against; 0 for greedy requests.",
        labels=names,
    )
    for labels, views in rows:
        family.add_metric(labels, _cumulative(ENTROPY, views["entropy"]), float(views["entropy_sum"][0]))
    return family


def _phases(names: list[str], rows: list[Row]) -> HistogramMetricFamily:
    """Where a step's time goes: rate(specdec_phase_seconds_sum[5m]) / rate(specdec_phase_seconds_count[5m])"""
    family = HistogramMetricFamily(
        "specdec_phase_seconds", "Time of one engine step's target forward, verification and drafting.",
        labels=[*names, "phase"],
    )  # fmt: skip
    for labels, views in rows:
        for phase in PHASES:
            counts, total = views[f"{phase}_seconds"], float(views[f"{phase}_seconds_sum"][0])
            family.add_metric([*labels, phase], _cumulative(SECONDS, counts), total)
    return family


def _cumulative(ends: Sequence[float], counts: np.ndarray) -> list[tuple[str, float]]:
    """Prometheus' buckets of counts [ends + 1]."""
    sums = np.cumsum(counts).tolist()
    return list(zip([*(str(end) for end in ends), "+Inf"], sums, strict=True))
