"""Losslessness in the real engine, by draft count, kind of drafts and rule; what plants a fault fails. See laws.py."""

import shutil
from pathlib import Path

import pytest

from specdec.drafting import BUCKETS, Calibration, save_calibration
from tests.engines.vllm.engine import HEAD, Outcome, ours, run_child
from tests.engines.vllm.laws import LEVEL, METHODS, jobs, p_values


@pytest.fixture(scope="module")
def baseline(prompts: list[list[int]]) -> Outcome:
    return run_child({}, jobs(prompts, 2500))


def test_three_drafts_are_lossless(prompts: list[list[int]], baseline: Outcome) -> None:
    """20,000 samples, two settings and four prompts mixed in every batch."""
    outcome = run_child(ours(3), jobs(prompts, 2500))
    assert min(p_values(outcome, baseline)) > LEVEL
    assert outcome.specdec["specdec_accepted_tokens_total{2}"] > 1000, "the third draft must be reached often"
    assert outcome.specdec["specdec_lost_draft_rows_total"] == 0


@pytest.mark.parametrize("num_drafts", [1, 5])
def test_other_draft_counts_are_lossless(
    num_drafts: int, prompts: list[list[int]], baseline: Outcome, tmp_path: Path
) -> None:
    """By a head whose stored draft scales are far from 1."""
    shutil.copytree(HEAD, tmp_path / "head")
    scale = 0.6 if num_drafts == 1 else 1.7
    save_calibration(Calibration((scale,) * len(BUCKETS)), tmp_path / "head")
    outcome = run_child(ours(num_drafts, head=tmp_path / "head"), jobs(prompts, 800))
    assert min(p_values(outcome, baseline)) > LEVEL


def test_greedy_drafts_are_lossless(prompts: list[list[int]], baseline: Outcome) -> None:
    """One-hot drafts of the head, verified exactly."""
    outcome = run_child(ours(3, "greedy"), jobs(prompts, 800))
    assert min(p_values(outcome, baseline)) > LEVEL


def test_block_verification_is_lossless(prompts: list[list[int]], baseline: Outcome) -> None:
    """Beside it the same batch by the token rule: the block rule accepts no fewer drafts, within noise."""
    outcomes = {m: run_child(ours(3, settings={"verify": {"method": m}}), jobs(prompts, 1200)) for m in METHODS}
    assert all(min(p_values(outcome, baseline)) > LEVEL for outcome in outcomes.values())
    accepted, steps = {}, {}
    for method, outcome in outcomes.items():
        accepted[method] = sum(v for k, v in outcome.specdec.items() if k.startswith("specdec_accepted_tokens_total"))
        steps[method] = outcome.specdec["specdec_verify_steps_total"]
    block, token = (accepted[m] / steps[m] for m in ("block", "token"))
    # A step accepts 0 to 3 drafts: a deviation of at most 1.5, so 5 deviations of the difference of two means.
    assert block > token - 5 * 1.5 * (1 / steps["block"] + 1 / steps["token"]) ** 0.5


def test_adaptive_drafts_are_lossless(prompts: list[list[int]], baseline: Outcome) -> None:
    """The number of drafts follows what was accepted, and what steps took, which differs from run to run."""
    outcome = run_child(ours(4, settings={"drafts": {"count": "adaptive"}}), jobs(prompts, 1500))
    assert min(p_values(outcome, baseline)) > LEVEL
    drafted = [outcome.specdec[f"specdec_draft_tokens_total{{{position}}}"] for position in range(4)]
    steps = outcome.specdec["specdec_verify_steps_total"] + outcome.specdec["specdec_undrafted_steps_total"]
    assert 0 < drafted[3] < 0.9 * steps and drafted[0] > 100, "the number never changed: the test would prove nothing"


def test_a_bound_on_kept_rows_is_lossless(prompts: list[list[int]], baseline: Outcome) -> None:
    """Room for the rows of 40 requests in batches of up to 128: the others' drafts are verified as one-hot."""
    bound = 40 * 3 * (1024 * 4 + 32) / 2**20
    outcome = run_child(ours(3, settings={"drafts": {"kept_mib": bound}}), jobs(prompts, 800))
    assert min(p_values(outcome, baseline)) > LEVEL
    drafted = sum(v for k, v in outcome.specdec.items() if k.startswith("specdec_draft_tokens_total"))
    assert 0.2 < outcome.specdec["specdec_lost_draft_rows_total"] / drafted < 0.8


@pytest.mark.parametrize("fault", ["q_at_another_temperature", "recovered_from_p", "bonus_unfiltered"])
def test_planted_faults_are_caught(fault: str, prompts: list[list[int]], baseline: Outcome) -> None:
    """The power of the test: with a fault planted in the verify step, it fails.

    A bonus token that no filter saw changes one token in five, and that seldom: it takes more samples to be certain.
    """
    outcome = run_child(ours(3), jobs(prompts, 2000 if fault == "bonus_unfiltered" else 800), fault=fault)
    assert min(p_values(outcome, baseline)) < LEVEL
