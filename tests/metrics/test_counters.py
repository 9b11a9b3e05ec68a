"""Counters by hand-worked steps, their file read as another process would, and the Prometheus text made of them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from specdec.metrics.cells import MAX_POSITIONS, read_all
from specdec.metrics.counters import StepCounters, TenantCounters
from specdec.metrics.export import SpecdecCollector

NAN = float("nan")
LABELS = ("position", "entropy", "phase", "le", "tenant")


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
            found[s.name + "".join(f"[{s.labels[k]}]" for k in LABELS if s.labels.get(k))] = s.value
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
    assert [found[f"specdec_recovered_tokens_total[{p}]"] for p in range(3)] == [1, 1, 0]
    assert [found[f"specdec_bonus_tokens_total[{n}]"] for n in range(4)] == [0, 0, 0, 1]
    assert found["specdec_undrafted_steps_total"] == 1
    assert "specdec_draft_tokens_total[3]" not in found


def test_several_workers_are_added_up_and_restarts_keep_the_sum(folder: Path) -> None:
    record_two_steps(StepCounters(folder, {"model_name": "tiny"}))
    assert samples(folder)["specdec_draft_tokens_total[0]"] == 6


def test_labels_keep_models_apart(folder: Path) -> None:
    record_two_steps(StepCounters(folder, {"model_name": "other"}))
    assert {dict(labels)["model_name"] for labels in read_all(folder)} == {"tiny", "other"}


def test_steps_without_drafts_count_as_such(tmp_path: Path) -> None:
    counters = StepCounters(tmp_path, {})
    counters.record(np.array([0, 0]), np.array([0, 0]), np.array([]))
    assert {name for name, view in counters.views.items() if view.any()} == {"undrafted_steps"}
    assert counters.views["undrafted_steps"][0] == 2


def test_looks_times_and_gauges(tmp_path: Path) -> None:
    counters = StepCounters(tmp_path, {"model_name": "tiny"})
    counters.record(np.array([2]), np.array([1]), np.array([0.5, 0.5]))
    # Of the third draft's acceptance nothing is known (block rule); 0.1 belongs to the bucket that it ends.
    overlap, entropy = np.array([0.5, 0.25, NAN]), np.array([0.1, 0.25, 9.0])
    counters.record_exact(np.array([0, 1, 1]), overlap, entropy, np.array([True, False, True]))
    counters.record_phase("verify", 0.002)
    counters.record_phase("verify", 100.0)
    counters.set("draft_rows_bytes", 4096)
    found = samples(tmp_path)
    assert [found[f"specdec_exact_acceptance_sum_total[{p}]"] for p in (0, 1)] == [0.5, 0.25]
    assert [found[f"specdec_exact_acceptance_rows_total[{p}]"] for p in (0, 1)] == [1, 1]
    reached = [k for k, v in found.items() if k.startswith("specdec_entropy_reached") and v]
    assert [k.partition("[")[2] for k in reached] == ["0-0.1]", "0.1-0.5]", "4-inf]"]
    assert found["specdec_entropy_accepted_tokens_total[0.1-0.5]"] == 0
    assert found["specdec_target_entropy_nats_bucket[0.5]"] == 2
    assert found["specdec_target_entropy_nats_count"] == 3
    assert found["specdec_target_entropy_nats_sum"] == pytest.approx(9.35)
    assert found["specdec_phase_seconds_bucket[verify][0.001]"] == 0
    assert found["specdec_phase_seconds_bucket[verify][0.0025]"] == 1
    assert found["specdec_phase_seconds_count[verify]"] == 2 and found["specdec_phase_seconds_count[draft]"] == 0
    assert found["specdec_draft_rows_bytes"] == 4096


def test_gauges_are_of_workers_that_live(tmp_path: Path) -> None:
    """Counts of a worker that is gone stay; what it held does not."""
    script = (
        "import sys, pathlib; from specdec.metrics.counters import StepCounters; "
        "c = StepCounters(pathlib.Path(sys.argv[1]), {'model_name': 'tiny'}); c.set('draft_rows_bytes', 7); "
        "c.set('drafts_per_step', 1); c.record_lost(3); print('ready', flush=True); sys.stdin.read()"
    )
    call = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        mine = StepCounters(tmp_path, {"model_name": "tiny"})
        mine.set("draft_rows_bytes", 100)
        mine.set("drafts_per_step", 4)
        found = samples(tmp_path)
        assert found["specdec_draft_rows_bytes"] == 107
        assert found["specdec_drafts_per_step"] == 2.5, "of two engines, the mean"
        worker.kill()
    found = samples(tmp_path)
    assert found["specdec_drafts_per_step"] == 4
    assert found["specdec_draft_rows_bytes"] == 100 and found["specdec_lost_draft_rows_total"] == 3


def test_tenants_are_told_apart_up_to_a_bound(tmp_path: Path) -> None:
    counters = TenantCounters(tmp_path, {"model_name": "tiny"}, most=2)
    for one, mine in counters.groups(["", "a", "b", "c", "a", "d"]):
        one.record(np.array([1] * 6)[mine], np.array([1, 0, 1, 1, 0, 1])[mine], np.ones(6)[mine])
    found = samples(tmp_path)
    drafted = {tenant: found[f"specdec_draft_tokens_total[0]{tenant}"] for tenant in ("", "[a]", "[b]", "[other]")}
    assert drafted == {"": 1, "[a]": 2, "[b]": 1, "[other]": 2}
    assert not any("[c]" in name or "[d]" in name for name in found)
    assert found["specdec_accepted_tokens_total[0][a]"] == 0 and found["specdec_accepted_tokens_total[0][other]"] == 2
    assert "specdec_draft_rows_bytes[a]" not in found, "what a worker holds is no tenant's"


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


@given(
    st.lists(st.tuples(st.integers(0, MAX_POSITIONS + 2), st.floats(0, 1), st.booleans(), st.booleans()), max_size=8),
    st.sampled_from([np.int32, np.int64, np.float32]),
)
def test_a_step_is_counted_as_one_request_after_another_would_be(
    requests: list[tuple[int, float, bool, bool]], integers: type
) -> None:
    drafts = [count for count, *_ in requests]
    kept = [round(share * count) for count, share, *_ in requests]
    unfinished, mine = (np.array([request[i] for request in requests], dtype=bool) for i in (2, 3))
    probability = np.random.default_rng(0).uniform(size=sum(drafts)).astype(np.float32)
    expected: Counter[str] = Counter()
    first = 0
    for count, accepted, left_out, counted in zip(drafts, kept, unfinished, mine, strict=True):
        chances, first = probability[first : first + count], first + count
        chances[accepted + 1 :] = NAN
        if left_out or not counted:
            continue
        names = ["undrafted_steps 0"]
        if count:
            names = ["steps 0", f"tokens_per_step {min(accepted, MAX_POSITIONS) + 1}"]
            names += [f"draft_tokens {i}" for i in range(count)] + [f"accepted {i}" for i in range(accepted)]
            names += [f"reached {i}" for i in range(min(accepted + 1, count))]
            names += [f"recovered {accepted}"] if accepted < count else [f"bonus {min(count, MAX_POSITIONS)}"]
            for i, chance in enumerate(chances[: accepted + 1]):
                expected[f"expected_sum {i}"] += chance
        expected.update(names)
    counters = StepCounters(None, {})
    counters.record(drafts, np.array(kept, dtype=integers), probability, unfinished.astype(integers), mine)
    found = {
        f"{name} {i}": value for name, view in counters.views.items() for i, value in enumerate(view.tolist()) if value
    }
    inside = {
        name: value for name, value in expected.items()
        if value and (int(name.split()[1]) < MAX_POSITIONS or name.startswith(("bonus", "tokens_per_step")))
    }  # fmt: skip
    assert found == pytest.approx(inside)


@pytest.mark.parametrize(
    ("drafts", "accepted", "probability"),
    [([2], [3], [1.0, 1.0]), ([2], [1], [1.0]), ([2, 1], [1], [1.0] * 3), ([2], [NAN], [1.0, 1.0]), ([-1], [0], [])],
)
def test_figures_that_do_not_fit_together_are_refused(
    drafts: list[int], accepted: list[float], probability: list[float]
) -> None:
    counters = StepCounters(None, {})
    with pytest.raises(ValueError):
        counters.record(drafts, np.array(accepted), np.array(probability))
    assert not any(view.any() for view in counters.views.values())
