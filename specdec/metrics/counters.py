"""What the verify steps of a worker have done so far, counted on the hot path; export.py shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specdec.metrics.buckets import ENTROPY, SECONDS, bucket
from specdec.metrics.cells import MAX_POSITIONS, CellFile, layout

OTHER = "other"  # the tenant of those for which there is no room


class StepCounters:
    """Of one worker under one set of labels, e.g. {"model_name": ...}. directory: see CellFile."""

    def __init__(self, directory: Path | None, labels: dict[str, str]):
        self._file = CellFile(directory, labels)
        self._positions = np.arange(MAX_POSITIONS)
        self.path = self._file.path
        self.views = layout(self._file.cells)

    def record(self, num_drafts: np.ndarray, num_accepted: np.ndarray, acceptance: np.ndarray) -> None:
        """One verify step of requests that each gained a token or more.

        num_drafts [B] int, num_accepted [B] int: drafts and accepted drafts per request. acceptance [N] float:
        VerifyOutput.acceptance_probability, request-major; not a number where a draft was not reached.
        """
        views = self.views
        with_drafts = num_drafts > 0
        drafting = int(with_drafts.sum())
        views["undrafted_steps"][0] += len(num_drafts) - drafting
        if not drafting:
            return
        if drafting < len(num_drafts):
            num_drafts, num_accepted = num_drafts[with_drafts], num_accepted[with_drafts]
        views["steps"][0] += drafting
        positions = self._positions[: min(int(num_drafts.max()), MAX_POSITIONS)]
        count = len(positions)
        drafted, kept = num_drafts[:, None] > positions, num_accepted[:, None] > positions
        ends_here = (num_accepted[:, None] == positions) & drafted
        views["draft_tokens"][:count] += drafted.sum(0)
        views["accepted"][:count] += kept.sum(0)
        views["recovered"][:count] += ends_here.sum(0)
        views["reached"][:count] += (kept | ends_here).sum(0)
        views["expected_sum"][:count] += _by_position(num_drafts, acceptance)[:, :count].sum(0)
        whole = np.minimum(num_drafts[num_accepted == num_drafts], MAX_POSITIONS)
        views["bonus"][:] += np.bincount(whole, minlength=MAX_POSITIONS + 1)
        emitted = np.minimum(num_accepted + 1, MAX_POSITIONS + 1)
        views["tokens_per_step"][:] += np.bincount(emitted, minlength=MAX_POSITIONS + 2)

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
        self.views[f"{phase}_seconds"][int(bucket(np.asarray(seconds), SECONDS))] += 1
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
    """values [N], request-major, as [B, largest count], 0 where there are none or no number."""
    grid = np.zeros((len(counts), int(counts.max())))
    grid[counts[:, None] > np.arange(grid.shape[1])] = np.nan_to_num(values)
    return grid
