"""Steps without drafts leave their rows to wait for the head: it drafts as if it had gone over them at once."""

from typing import Any

import pytest

from tests.engines.vllm.engine import Outcome, ours, run_child


def serve(prompts: list[list[int]], fault: str | None = None) -> Outcome:
    """Eight requests without drafts, then the four that go on with three: vLLM's own table by batch size."""
    engine = ours(3)
    engine["speculative_config"]["num_speculative_tokens_per_batch_size"] = [[1, 4, 3], [5, 128, 0]]
    sampled: dict[str, Any] = {"temperature": 1.0, "ignore_eos": True}
    jobs = [
        {"prompts": prompts[:4], "params": {**sampled, "max_tokens": 41}},
        {"prompts": prompts[4:8], "params": {**sampled, "max_tokens": 100}},
    ]
    return run_child(engine, jobs, fault=fault)


def test_the_head_drafts_as_if_no_row_had_waited(prompts: list[list[int]]) -> None:
    waited, at_once, lost = (serve(prompts, fault) for fault in (None, "no_row_waits", "waiting_rows_are_lost"))
    assert waited.tokens(0) == at_once.tokens(0)
    assert waited.tokens(1) == at_once.tokens(1)
    ours_, theirs = (
        {k: v for k, v in found.specdec.items() if "expected" in k or "accepted" in k} for found in (waited, at_once)
    )
    assert ours_ == pytest.approx(theirs, rel=1e-3) and waited.specdec["specdec_undrafted_steps_total"] > 8 * 35
    # The power of the test: a head that never saw those rows drafts otherwise.
    assert lost.tokens(1) != at_once.tokens(1)
    expected = [found.specdec["specdec_expected_acceptance_sum_total{0}"] for found in (at_once, lost)]
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


def test_a_prompt_that_fills_a_step_while_rows_wait(prompts: list[list[int]]) -> None:
    """All together would be more rows than the head's buffers hold: this was the end of the engine."""
    engine = {**ours(3), "max_num_batched_tokens": 64, "max_num_seqs": 16}
    engine["speculative_config"]["num_speculative_tokens_per_batch_size"] = [[1, 2, 3], [3, 16, 0]]
    # Long prompts fill steps beside requests of which rows wait, until so few are left that drafts are made again.
    jobs = [
        {"prompts": [prompts[i]], "params": {"temperature": 0.0, "ignore_eos": True, "max_tokens": 30 + 10 * i}}
        for i in range(4)
    ]
    long = [token for ids in prompts[10:17] for token in ids]
    jobs.append({"prompts": [long] * 2, "params": {"temperature": 0.0, "ignore_eos": True, "max_tokens": 8}})
    found = run_child(engine, jobs)
    assert [len(tokens) for tokens in found.tokens(4)] == [8, 8]
