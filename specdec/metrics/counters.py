"""What the verify steps of a worker have done so far, counted on the hot path; export.py shows it."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specdec import _C
from specdec.metrics.buckets import ENTROPY, SECONDS, bucket
from specdec.metrics.cells import BEGINS, MAX_POSITIONS, CellFile, layout

OTHER = "other"  # the tenant of those for which there is no room


class StepCounters:
    """Of one worker under one set of labels, e.g. {"model_name": ...}. directory: see CellFile."""

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self._file = CellFile(directory, labels)
        self.path = self._file.path
        self.views = layout(self._file.cells)
        # For single numbers, of each of which an array makes an object.
        self._cells = self._file.cells.data.cast("B").cast("d")
        self._steps = _C.StepCells(self._file.cells, MAX_POSITIONS, BEGINS)

    def record(
        self,
        num_drafts: Sequence[int] | np.ndarray,
        num_accepted: np.ndarray,
        acceptance: np.ndarray,
        unfinished: np.ndarray | None = None,
        mine: np.ndarray | None = None,
    ) -> None:
        """One verify step.

        num_drafts [B] int, num_accepted [B]: drafts and accepted drafts per request. acceptance [N] float:
        VerifyOutput.acceptance_probability, request-major; not a number where a draft was not reached. Left out are
        requests where unfinished [B] is not 0, which gain no token, and those where mine bool [B] is False. Numbers may
        be int32, int64, float32 or float64. ValueError where they do not fit together.
        """
        self._steps.add(num_drafts, num_accepted, acceptance, unfinished, mine)

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
        cells = self._cells
        cells[BEGINS[f"{phase}_seconds"] + bisect_left(SECONDS, seconds)] += 1
        cells[BEGINS[f"{phase}_seconds_sum"]] += seconds

    def record_lost(self, count: int) -> None:
        """Draft tokens verified as one-hot because their draft rows were gone (see engines/vllm/drafts.py)."""
        self.views["lost_rows"][0] += count

    def set(self, gauge: str, value: float) -> None:
        """One of GAUGES."""
        self._cells[BEGINS[gauge]] = value


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
