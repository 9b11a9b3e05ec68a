"""What the verify steps of a worker have done so far, counted on the hot path; export.py shows it."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specdec.metrics.buckets import ENTROPY, SECONDS, bucket
from specdec.metrics.cells import MAX_POSITIONS, PHASES, SIZE, CellFile, layout

OTHER = "other"  # the tenant of those for which there is no room


class StepCounters:
    """Of one worker under one set of labels, e.g. {"model_name": ...}. directory: see CellFile."""

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self._file = CellFile(directory, labels)
        self._outcomes = self._file.cells[:_END]
        self.path = self._file.path
        self.views = layout(self._file.cells)
        self._phases = {name: (self.views[f"{name}_seconds"], self.views[f"{name}_seconds_sum"]) for name in PHASES}

    def record(self, num_drafts: np.ndarray, num_accepted: np.ndarray, acceptance: np.ndarray) -> None:
        """One verify step of requests that each gained a token or more.

        num_drafts [B] int, num_accepted [B] int: drafts and accepted drafts per request. acceptance [N] float:
        VerifyOutput.acceptance_probability, request-major; not a number where a draft was not reached.
        """
        # One gather and one sum, whatever is counted: many small calls of NumPy would take longer than they count.
        if not len(num_drafts):
            return
        most = int(num_drafts.max())
        if most <= MAX_POSITIONS:
            self._outcomes += _OUTCOMES[num_drafts, num_accepted].sum(0)
        else:
            beyond = _BEYOND[(num_accepted == num_drafts).astype(int), np.minimum(num_accepted, MAX_POSITIONS)]
            inside = _OUTCOMES[np.minimum(num_drafts, MAX_POSITIONS), np.minimum(num_accepted, MAX_POSITIONS)]
            self._outcomes += np.where((num_drafts > MAX_POSITIONS)[:, None], beyond, inside).sum(0)
        if most:
            sums = _by_position(num_drafts, acceptance, most)[:MAX_POSITIONS]
            self.views["expected_sum"][: len(sums)] += sums

    def record_undrafted(self, requests: int) -> None:
        """One step of so many requests, none of which had a draft."""
        self.views["undrafted_steps"][0] += requests

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
        counts, total = self._phases[phase]
        counts[bisect_left(SECONDS, seconds)] += 1
        total[0] += seconds

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


def _by_position(counts: np.ndarray, values: np.ndarray, most: int) -> np.ndarray:
    """values [N], request-major, summed by position: float64 [most], of the largest count; nan is 0."""
    values = np.fmax(values, 0)  # of a number and none, the number
    if most * len(counts) == len(values):  # all have as many
        return values.reshape(-1, most).sum(0, dtype=np.float64)
    positions = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.bincount(positions, weights=values, minlength=most)


def _outcome(drafts: int, accepted: int, every: bool) -> np.ndarray:
    """float64 [SIZE]: what one request adds to the cells. every: whether all its drafts were accepted."""
    cells = np.zeros(SIZE)
    views = layout(cells)
    if not drafts:
        views["undrafted_steps"][0] = 1
        return cells
    views["steps"][0] = 1
    views["draft_tokens"][:drafts] = 1
    views["accepted"][:accepted] = 1
    views["reached"][: accepted if every else accepted + 1] = 1
    views["bonus"][min(drafts, MAX_POSITIONS)] = every
    views["recovered"][accepted : accepted + 1] = not every
    views["tokens_per_step"][accepted + 1] = 1
    return cells


_UP_TO = range(MAX_POSITIONS + 1)
# By drafts and accepted drafts; of requests with more drafts than positions, by whether all were accepted, and accepted
# drafts, of which the last stands for more too.
_OUTCOMES = np.stack([[_outcome(drafts, accepted, accepted == drafts) for accepted in _UP_TO] for drafts in _UP_TO])
_BEYOND = np.stack([[_outcome(MAX_POSITIONS + 1, accepted, every) for accepted in _UP_TO] for every in (False, True)])
_END = int(np.flatnonzero(_OUTCOMES.sum((0, 1)) + _BEYOND.sum((0, 1)))[-1]) + 1
_OUTCOMES, _BEYOND = (np.ascontiguousarray(table[..., :_END]) for table in (_OUTCOMES, _BEYOND))
