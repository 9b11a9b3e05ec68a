"""Counters by hand-worked steps, their file read as another process would, and the Prometheus text made of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from specdec.metrics.counters import MAX_POSITIONS, StepCounters
from specdec.metrics.export import SpecdecCollector, read_all

NAN = float("nan")


def record_two_steps(counters: StepCounters) -> None:
    # Three requests: all 3 drafts accepted; 1 of 2 accepted (the second rejected); no drafts at all.
    counters.record(np.array([3, 2, 0]), np.array([3, 1, 0]), np.array([0.5, 1.0, 0.25, 1.0, 0.5]))
    # One request whose first draft is rejected: the others were not reached.
    counters.record(np.array([3]), np.array([0]), np.array([0.125, NAN, NAN]))


def samples(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(SpecdecCollector(folder))
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for s in family.samples:
            found[s.name + "".join(f"[{s.labels[k]}]" for k in ("position", "le") if k in s.labels)] = s.value
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    record_two_steps(StepCounters(tmp_path / "m", {"model_name": "tiny"}))
    return tmp_path / "m"


def test_hand_worked_steps(folder: Path) -> None:
    found = samples(folder)
    assert [found[f"specdec_draft_tokens_total[{p}]"] for p in range(3)] == [3, 3, 2]
    assert [found[f"specdec_reached_draft_tokens_total[{p}]"] for p in range(3)] == [3, 2, 1]
    assert [found[f"specdec_accepted_tokens_total[{p}]"] for p in range(3)] == [2, 1, 1]
    assert [found[f"specdec_expected_acceptance_sum_total[{p}]"] for p in range(3)] == [1.625, 1.5, 0.25]
    assert found["specdec_verify_steps_total"] == 3
    assert found["specdec_tokens_per_step_count"] == 3
    assert found["specdec_tokens_per_step_sum"] == 4 + 2 + 1
    assert [found[f"specdec_tokens_per_step_bucket[{n}.0]"] for n in (1, 2, 3, 4)] == [1, 2, 2, 3]
    assert "specdec_draft_tokens_total[3]" not in found


def test_several_workers_are_added_up_and_restarts_keep_the_sum(folder: Path) -> None:
    record_two_steps(StepCounters(folder, {"model_name": "tiny"}))
    assert samples(folder)["specdec_draft_tokens_total[0]"] == 6


def test_labels_keep_models_apart(folder: Path) -> None:
    record_two_steps(StepCounters(folder, {"model_name": "other"}))
    assert {dict(labels)["model_name"] for labels in read_all(folder)} == {"tiny", "other"}


def test_steps_without_drafts_count_nothing(tmp_path: Path) -> None:
    counters = StepCounters(tmp_path, {})
    counters.record(np.array([0, 0]), np.array([0, 0]), np.array([]))
    assert not any(view.any() for view in counters.views.values())


def test_more_drafts_than_told_apart_are_cut_off_not_misfiled(tmp_path: Path) -> None:
    n = MAX_POSITIONS + 4
    counters = StepCounters(tmp_path, {})
    counters.record(np.array([n]), np.array([n]), np.ones(n))
    assert counters.views["accepted"].tolist() == [1] * MAX_POSITIONS
    assert counters.views["tokens_per_step"][MAX_POSITIONS + 1] == 1


def test_no_folder_and_no_files_show_nothing(tmp_path: Path) -> None:
    assert samples(tmp_path / "absent") == {}
    assert samples(tmp_path) == {}


def test_a_reader_never_sees_a_file_without_its_labels(folder: Path) -> None:
    for path in folder.glob("*.cells"):
        assert json.loads(path.with_suffix(".json").read_text()) == {"model_name": "tiny"}
    assert not list(folder.glob("*.new"))
