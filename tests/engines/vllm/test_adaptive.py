"""Drafting that adapts, in the real engine: who keeps a fixed number, what is refused. Its law: test_lossless.py."""

from typing import Any

import pytest

from tests.engines.vllm.engine import fail_child, ours, run_child

ADAPTIVE = {"drafts": {"count": "adaptive"}}


def jobs(prompts: list[list[int]]) -> list[dict[str, Any]]:
    """Greedy, seeded, and many others, whose numbers of drafts follow them."""
    usual = {"max_tokens": 40, "ignore_eos": True}
    return [
        {"prompts": prompts[:6], "params": {"temperature": 0.0, **usual}},
        {"prompts": prompts[:6], "params": {"temperature": 1.0, "seed": 7, **usual}},
        {"prompts": prompts[6:30], "params": {"temperature": 1.0, **usual}},
    ]


def test_seeded_requests_repeat_and_greedy_ones_do_not_change(prompts: list[list[int]]) -> None:
    """A seeded request has all drafts whatever the others have, so its tokens are those of a fixed number."""
    fixed = run_child(ours(4), jobs(prompts))
    adaptive = run_child(ours(4, settings=ADAPTIVE), jobs(prompts))
    assert adaptive.tokens(0) == fixed.tokens(0) and adaptive.tokens(1) == fixed.tokens(1)
    last = "specdec_draft_tokens_total{3}"
    assert 0 < adaptive.specdec[last] < 0.9 * fixed.specdec[last], "no request had fewer: the test would prove nothing"


def test_a_number_of_drafts_that_holds_for_all(prompts: list[list[int]]) -> None:
    given = jobs(prompts)[:2]
    four = run_child(ours(4, settings={"drafts": {"count": 2}}), given)
    two = run_child(ours(2), given)
    assert four.results == two.results
    assert four.specdec["specdec_drafts_per_step"] == 2 and "specdec_draft_tokens_total{2}" not in four.specdec
    none = run_child(ours(4, settings={"drafts": {"count": 0}}), given)
    assert none.tokens(0) == two.tokens(0) and none.specdec["specdec_verify_steps_total"] == 0
    assert none.specdec["specdec_undrafted_steps_total"] == 12 * 40
    phases = [none.specdec.get(f"specdec_phase_seconds_count{{{phase}}}", 0) for phase in ("target", "draft")]
    assert phases[0] > 0 and phases[1] == 0, "the head goes over nothing where it is never asked"


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (ours(3, settings={"drafts": {"count": 5}}), "drafts.count 5 is more than num_speculative_tokens 3"),
        (ours(3, settings={"drafts": {"count": "most"}}), "setting 'specdec.drafts.count"),
        (
            {**ours(3, settings=ADAPTIVE), "scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"},
            "knows no steering programs and no drafts.count: leave it out",
        ),
    ],
    ids=["too many", "unknown", "another scheduler"],
)
def test_refused_at_the_start(engine: dict[str, Any], says: str) -> None:
    assert says in fail_child(engine)


def test_two_ways_to_choose_are_one_too_many() -> None:
    engine = ours(3, settings=ADAPTIVE)
    engine["speculative_config"]["num_speculative_tokens_per_batch_size"] = [[1, 8, 3], [9, 128, 1]]
    assert "both choose how many drafts" in fail_child(engine)
