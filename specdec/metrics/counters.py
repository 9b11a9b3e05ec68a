"""What the verify steps of a worker have done so far, counted on the hot path; export.py shows it."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specdec.metrics.buckets import ENTROPY, SECONDS, bucket
from specdec.metrics.cells import MAX_POSITIONS, SIZE, CellFile, layout

OTHER = "other"  # the tenant of those for which there is no room


class StepCounters:
    """Of one worker under one set of labels, e.g. {"model_name": ...}. directory: see CellFile."""

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self._file = CellFile(directory, labels)
        self._outcomes = self._file.cells[:_END]
        self.path = self._file.path
        self.views = layout(self._file.cells)

    def record(self, num_drafts: np.ndarray, num_accepted: np.ndarray, acceptance: np.ndarray) -> None:
        """One verify step of requests that each gained a token or more.

        num_drafts [B] int, num_accepted [B] int: drafts and accepted drafts per request. acceptance [N] float:
        VerifyOutput.acceptance_probability, request-major; not a number where a draft was not reached.
        """
        # One gather and one sum, whatever is counted: many small calls of NumPy would take longer than they count.
        drafts, accepted = np.minimum(num_drafts, MAX_POSITIONS + 1), np.minimum(num_accepted, MAX_POSITIONS)
        self._outcomes += _OUTCOMES[drafts, accepted, (num_accepted == num_drafts).view(np.int8)].sum(0)
        if len(acceptance):
            sums = _by_position(num_drafts, acceptance)[:MAX_POSITIONS]
            self.views["expected_sum"][: len(sums)] += sums

    def record_exact(
        self, positions: np.ndarray, overlap: np.ndarray, entropy: np.ndarray, accepted: np.ndarray
    ) -> None:
        """Reached drafts [m] of a step that was looked at: their positions, Σ min(p, q) (nan: not meant to be what is
        accepted), the target's entropy in nats, whether each was accepted."""
        views = self.views
        meant = (positions < MAX_POSITIONS) & np.isfinite(overlap)
        np.add.at(views["exact_sum"], positions[meant], overlap[meant])
        np.add.at(views["exact_rows"], positions[meant], 1)
        known = np.isfinite(entropy)
        entropy, accepted = np.maximum(entropy[known], 0), accepted[known]
        places = bucket(entropy, ENTROPY)
        np.add.at(views["entropy"], places, 1)
        np.add.at(views["entropy_reached"], places, 1)
        np.add.at(views["entropy_accepted"], places, accepted)
        views["entropy_sum"][0] += entropy.sum()

    def record_phase(self, phase: str, seconds: float) -> None:
        """One engine step's time in one of PHASES."""
        self.views[f"{phase}_seconds"][bisect_left(SECONDS, seconds)] += 1
        self.views[f"{phase}_seconds_sum"][0] += seconds

    def record_lost(self, count: int) -> None:
        """Draft tokens verified as one-hot because their draft rows were gone (see engines/vllm/drafts.py)."""
        self.views["lost_rows"][0] += count

    def set(self, gauge: str, value: float) -> None:
        """One of GAUGES."""
        self.views[gauge][0] = value


class TenantCounters:
    """The counters of one worker, told apart by tenant: at most `most` of them by name, later ones under OTHER."""

    def __init__(self, directory: Path | None, labels: dict[str, str], most: int):
        self._directory, self._labels, self._most = directory, labels, most
        self.own = StepCounters(directory, {**labels, "tenant": ""})  # of requests that name none, and of the worker
        self._tenants: dict[str, StepCounters] = {}

    def of(self, tenant: str) -> StepCounters:
        """Counters for requests of this tenant; "": for those that name none."""
        if not tenant:
            return self.own
        if tenant not in self._tenants:
            named = len(self._tenants) - (OTHER in self._tenants)
            if tenant != OTHER and named >= self._most:
                return self.of(OTHER)
            self._tenants[tenant] = StepCounters(self._directory, {**self._labels, "tenant": tenant})
        return self._tenants[tenant]

    def groups(self, tenants: Sequence[str]) -> list[tuple[StepCounters, np.ndarray]]:
        """By counters, which of a batch's requests [B] are theirs: bool [B]."""
        found: dict[int, tuple[StepCounters, np.ndarray]] = {}
        for place, tenant in enumerate(tenants):
            counters = self.of(tenant)
            _, mask = found.setdefault(id(counters), (counters, np.zeros(len(tenants), dtype=bool)))
            mask[place] = True
        return list(found.values())


def _by_position(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values [N], request-major, summed by position: float64 [largest count]; what is no number counts as 0."""
    values = np.where(np.isfinite(values), values, 0)
    most = int(counts.max())
    if most * len(counts) == len(values):  # all have as many
        return values.reshape(-1, most).sum(0, dtype=np.float64)
    positions = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.bincount(positions, weights=values, minlength=most)


def _outcomes() -> np.ndarray:
    """float64 [drafts, accepted, all accepted, SIZE]: what one request adds to the cells.

    The last of the drafts are more than MAX_POSITIONS; the last of the accepted, MAX_POSITIONS or more.
    """
    table = np.zeros((MAX_POSITIONS + 2, MAX_POSITIONS + 1, 2, SIZE))
    for drafts, accepted, every in np.ndindex(*table.shape[:3]):
        views = layout(table[drafts, accepted, every])
        if not drafts:
            views["undrafted_steps"][0] = 1
            continue
        views["steps"][0] = 1
        views["draft_tokens"][:drafts] = 1
        views["accepted"][:accepted] = 1
        views["reached"][: accepted if every else accepted + 1] = 1
        views["bonus"][min(drafts, MAX_POSITIONS)] = every
        views["recovered"][accepted : accepted + 1] = not every
        views["tokens_per_step"][accepted + 1] = 1
    return table


_OUTCOMES = _outcomes()
_END = int(np.flatnonzero(_OUTCOMES.any((0, 1, 2)))[-1]) + 1
_OUTCOMES = np.ascontiguousarray(_OUTCOMES[..., :_END])
