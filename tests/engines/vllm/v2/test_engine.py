"""vLLM's V2 runner itself, under asynchronous scheduling with two steps in flight: greedy tokens, processors, logprobs.

Its Triton kernels run in Triton's interpreter (interpreter.py), which is slow: a small batch says it all at once. What
comes out is compared with the V1 runner without speculation.
"""

import pytest
import torch

from tests.engines.vllm.engine import Outcome, ours, run_child
from tests.engines.vllm.test_generation import BIASED, FREQUENT, reference_rows
from tests.engines.vllm.v2.engine import run_v2

GREEDY = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True}
THINK = 8
PROCESSED = {  # every kind of processor that looks at what came before, and the sampling it wants
    "nothing": {},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.7, "presence_penalty": 0.4},
    "bad words": {"bad_words": ["self", "return"]},
    "min tokens": {"ignore_eos": False, "min_tokens": 10, "stop_token_ids": FREQUENT[:100]},
    "logit bias": BIASED,
    "allowed tokens": {"allowed_token_ids": list(range(60, 90))},
    "grammar": {"ignore_eos": False, "structured_outputs": {"regex": "[a-d]{9}"}},
    "thinking budget": {"thinking_token_budget": 4},
}
SAMPLED = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "max_tokens": 12, "ignore_eos": True, "logprobs": 2}
SEEDED = {"temperature": 1.0, "max_tokens": 12, "ignore_eos": True, "seed": 7}
ENGINE = {
    "max_num_seqs": 32,
    "reasoning_config": {"reasoning_start_str": "(", "reasoning_end_str": ")"},
    "logprobs_mode": "processed_logprobs",
}


def all_jobs(prompts: list[list[int]]) -> list[dict]:
    greedy = [
        {"prompts": [[*ids, THINK] for ids in prompts[:2]], "params": {**GREEDY, **settings}}
        for settings in PROCESSED.values()
    ]
    return [*greedy, {"prompts": prompts[:2], "params": SAMPLED}, {"prompts": prompts[:2], "params": SEEDED}]


@pytest.fixture(scope="module")
def plain(prompts: list[list[int]]) -> Outcome:
    return run_child(ENGINE, all_jobs(prompts)[: len(PROCESSED)] + crowded_jobs(prompts)[:2])


@pytest.fixture(scope="module")
def drafted(prompts: list[list[int]]) -> Outcome:
    """With room for copies of 40 rows, 20 where there are two of each: the steps of all requests come in parts."""
    return run_v2({**ours(3), **ENGINE}, all_jobs(prompts), workspace=40 * 1024 * 4)


def test_it_is_the_v2_runner_under_asynchronous_scheduling(drafted: Outcome) -> None:
    assert drafted.classes == {
        "runner": "vllm.v1.worker.gpu.model_runner",
        "sampler": "specdec.engines.vllm.v2.verifier",
        "scheduler": "AsynchronousScheduler",
        "in_flight": "2",
        "parts of a step": "1 to 4",
    }


@pytest.mark.parametrize("kind", PROCESSED)
def test_greedy_equals_no_speculation(kind: str, plain: Outcome, drafted: Outcome) -> None:
    job = list(PROCESSED).index(kind)
    assert drafted.tokens(job) == plain.tokens(job)
    assert all(len(tokens) >= 4 for tokens in drafted.tokens(job)), "long enough for a second verify step"


def test_processed_logprobs(prompts: list[list[int]], drafted: Outcome) -> None:
    from specdec.sampling import filtered_logits

    for prompt, result in zip(prompts, drafted.results[len(PROCESSED)], strict=False):
        rows = reference_rows(prompt, result["token_ids"])
        each = [(0.8, torch.float32), (20, torch.int32), (0.9, torch.float32), (0.0, torch.float32)]
        expected = filtered_logits(rows, *(torch.full((len(rows),), x, dtype=d) for x, d in each)).log_softmax(-1)
        for row, token, values in zip(expected, result["token_ids"], result["logprobs"], strict=True):
            assert str(token) in values
            assert all(abs(row[int(t)].item() - v) < 1e-3 for t, v in values.items() if v > -1e30)


def test_counters(drafted: Outcome) -> None:
    """Ours count the steps that are computed for a request before the scheduler knows that it has ended, vLLM's not."""
    drafts = sum(v for k, v in drafted.specdec.items() if k.startswith("specdec_draft_tokens_total"))
    accepted = sum(v for k, v in drafted.specdec.items() if k.startswith("specdec_accepted_tokens_total"))
    assert drafts >= drafted.metrics["vllm:spec_decode_num_draft_tokens"] > 0
    assert accepted >= drafted.metrics["vllm:spec_decode_num_accepted_tokens"] > 0
    assert drafted.specdec["specdec_lost_draft_rows_total"] == 0
    assert accepted / drafts > 0.3


def test_drafting_that_adapts(prompts: list[list[int]], plain: Outcome) -> None:
    """Steps overlap, so a step's drafts are cut before they are drawn."""
    greedy = {"prompts": [[*ids, THINK] for ids in prompts[:2]], "params": {**GREEDY, "max_tokens": 64}}
    jobs = [greedy, {"prompts": prompts[:4], "params": {**SAMPLED, "logprobs": None}}]
    found = run_v2({**ours(3, settings={"drafts": {"count": "adaptive"}}), **ENGINE}, jobs)
    assert [ids[:16] for ids in found.tokens(0)] == plain.tokens(0)
    undrafted = found.specdec["specdec_undrafted_steps_total"]
    assert undrafted > 6, "more than the requests' first steps: some asked for no drafts"
    assert found.specdec["specdec_accepted_tokens_total{0}"] > 0 == found.specdec["specdec_lost_draft_rows_total"]


def crowded_jobs(prompts: list[list[int]]) -> list[dict]:
    """Prompts of 2 tokens start all at once, and their drafts are more than the budget; those of 28 tokens ask for a
    second block of 32 after a step or two."""
    raw = {"temperature": 1.0, "max_tokens": 16, "ignore_eos": True, "logprobs": 2}
    return [
        {"prompts": [ids[:2] for ids in prompts[:9]], "params": {**GREEDY, "max_tokens": 8}},
        {"prompts": [ids[:28] for ids in prompts[:7]], "params": GREEDY},
        {"prompts": [ids[:28] for ids in prompts[10:11]], "params": raw},
    ]


@pytest.fixture(scope="module")
def crowded(prompts: list[list[int]]) -> Outcome:
    """A token budget too small for all drafts, a KV cache too small for the batch, and requests broken off."""
    tight = {"max_num_seqs": 20, "max_num_batched_tokens": 30, "block_size": 32, "num_gpu_blocks_override": 9}
    return run_v2({**ours(3), **tight, "max_model_len": 64}, crowded_jobs(prompts), aborts=2)


def test_greedy_tokens_survive_preemption_truncation_and_aborts(plain: Outcome, crowded: Outcome) -> None:
    assert crowded.metrics["vllm:num_preemptions"] > 0, "nothing was preempted: the test would prove nothing"
    first, third = (crowded.specdec[f"specdec_draft_tokens_total{{{p}}}"] for p in (0, 2))
    assert third < first, "the budget did not truncate any drafts: the test would prove nothing"
    for job in range(2):
        assert crowded.tokens(job) == plain.tokens(len(PROCESSED) + job)


def test_requests_find_their_own_draft_rows(crowded: Outcome) -> None:
    """Also after steps that they sat out; none is lost, and so none is verified as one-hot."""
    assert crowded.specdec["specdec_lost_draft_rows_total"] == 0


def test_raw_logprobs(prompts: list[list[int]], crowded: Outcome) -> None:
    for prompt, result in zip(prompts[10:11], crowded.results[2], strict=True):
        expected = reference_rows(prompt[:28], result["token_ids"]).log_softmax(-1)
        assert len(result["logprobs"]) == len(result["token_ids"]) == 16
        for row, token, values in zip(expected, result["token_ids"], result["logprobs"], strict=True):
            assert str(token) in values
            assert all(abs(row[int(t)].item() - v) < 1e-3 for t, v in values.items())
