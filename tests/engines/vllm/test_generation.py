"""What speculation must not change for a request: greedy tokens, logprobs, limits, stops, several completions."""

import math

import pytest
import torch

from tests.engines.vllm.engine import MODEL, Outcome, ours, run_child

GREEDY = {"temperature": 0.0, "max_tokens": 128, "ignore_eos": True}
# Newlines with the indentations that Python has all over: as stop tokens they end a text soon.
FREQUENT = list(range(190, 700))
LOGPROBS = [
    {"temperature": 1.0, "max_tokens": 24, "ignore_eos": True, "logprobs": 3},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "max_tokens": 24, "ignore_eos": True, "logprobs": 3},
    {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True, "logprobs": 3},
]


def mixed_jobs(prompts: list[list[int]]) -> list[dict]:
    seeded = {"temperature": 1.0, "max_tokens": 32, "ignore_eos": True, "seed": 7}
    return [
        {"prompts": prompts, "params": GREEDY},
        *({"prompts": prompts[:4], "params": p} for p in LOGPROBS),
        {
            "prompts": prompts[:4],
            "params": {"temperature": 1.0, "n": 3, "max_tokens": 20, "ignore_eos": True, "seed": 3},
        },
        {"prompts": prompts[:16], "params": {"temperature": 0.0, "max_tokens": 64, "stop": ["e", "\n"]}},
        {"prompts": prompts[:4], "params": {"temperature": 1.0, "max_tokens": 7, "ignore_eos": True}},
        {
            "prompts": [(p * 9)[:247] for p in prompts[:4]],
            "params": {"temperature": 0.0, "max_tokens": 64, "ignore_eos": True},
        },
        {"prompts": prompts[:2], "params": seeded},
        {"prompts": prompts[:8], "params": {**GREEDY, "max_tokens": 48, "repetition_penalty": 1.3, "min_tokens": 40}},
        {
            "prompts": prompts[:8],
            "params": {**GREEDY, "max_tokens": 48, "frequency_penalty": 0.7, "presence_penalty": 0.4},
        },
        {"prompts": prompts[:8], "params": {**GREEDY, "max_tokens": 48, "bad_words": ["self", "return"]}},
        {
            "prompts": prompts[:8],
            "params": {"temperature": 0.0, "max_tokens": 48, "min_tokens": 10, "stop_token_ids": FREQUENT},
        },
        {"prompts": prompts[:8], "params": {**GREEDY, "max_tokens": 48, **BIASED}},
    ]


# A repetition penalty too: the order of the two matters.
BIASED = {"logit_bias": {str(t): 3.0 for t in range(300, 340)}, "repetition_penalty": 1.2, "min_p": 0.1}
SEEDED = {"temperature": 1.0, "max_tokens": 24, "ignore_eos": True, "seed": 11}
# Nothing is allowed for eight tokens: the end alone may come, and it may not come yet.
IMPOSSIBLE = {"temperature": 1.0, "allowed_token_ids": [0], "min_tokens": 8, "max_tokens": 12}


def hard_jobs(prompts: list[list[int]]) -> list[dict]:
    """Beside those of mixed_jobs: number 14. (Without speculation vLLM would give it any token.)"""
    return [{"prompts": prompts[:2], "params": IMPOSSIBLE}]


@pytest.fixture(scope="module")
def plain(prompts: list[list[int]]) -> Outcome:
    return run_child({}, mixed_jobs(prompts))


@pytest.fixture(scope="module")
def drafted(prompts: list[list[int]]) -> Outcome:
    return run_child(ours(3), mixed_jobs(prompts) + hard_jobs(prompts))


def test_installed_but_not_switched_on_changes_nothing(plain: Outcome, drafted: Outcome) -> None:
    """Without our flags every class at work is vLLM's own; with them the three that we replace are ours."""
    assert plain.classes and all(module.startswith(("vllm.", "builtins")) for module in plain.classes.values())
    assert plain.specdec == {}
    assert all(module.startswith("specdec.engines.vllm.") for module in drafted.classes.values())


def test_greedy_equals_no_speculation(plain: Outcome, drafted: Outcome) -> None:
    """64 prompts x 128 tokens, token for token."""
    assert drafted.tokens(0) == plain.tokens(0)
    assert sum(len(t) for t in drafted.tokens(0)) == 64 * 128


def reference_rows(prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """Logits [len(tokens), V] of a plain forward pass in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("job", [1, 2, 3])
def test_raw_logprobs_equal_a_plain_forward_pass(job: int, prompts: list[list[int]], drafted: Outcome) -> None:
    for prompt, result in zip(prompts[:4], drafted.results[job], strict=True):
        expected = reference_rows(prompt, result["token_ids"]).log_softmax(-1)
        assert len(result["logprobs"]) == len(result["token_ids"])
        for row, token, values in zip(expected, result["token_ids"], result["logprobs"], strict=True):
            assert str(token) in values
            assert all(abs(row[int(t)].item() - value) < 1e-3 for t, value in values.items())


def test_processed_logprobs_equal_the_filtered_distribution(prompts: list[list[int]]) -> None:
    """`logprobs_mode=processed_logprobs`: temperature and filters included."""
    from specdec.sampling import filtered_logits

    jobs = [{"prompts": prompts[:4], "params": p} for p in LOGPROBS]
    outcome = run_child({**ours(3), "logprobs_mode": "processed_logprobs"}, jobs)
    for params, results in zip(LOGPROBS, outcome.results, strict=True):
        for prompt, result in zip(prompts[:4], results, strict=True):
            rows = reference_rows(prompt, result["token_ids"])
            each = [params["temperature"], params.get("top_k", 0), params.get("top_p", 1.0), 0.0]
            dtypes = [torch.float32, torch.int32, torch.float32, torch.float32]
            columns = [torch.full((len(rows),), x, dtype=d) for x, d in zip(each, dtypes, strict=True)]
            expected = filtered_logits(rows, *columns).log_softmax(-1)
            for row, token, values in zip(expected, result["token_ids"], result["logprobs"], strict=True):
                finite = {int(t): v for t, v in values.items() if math.isfinite(v) and v > -1e30}
                assert token in finite, "the token that came out must have a probability"
                assert all(abs(row[t].item() - v) < 1e-3 for t, v in finite.items())


def test_several_completions_of_a_seeded_request(plain: Outcome, drafted: Outcome) -> None:
    for n in range(4):
        three = drafted.tokens(4)[3 * n : 3 * n + 3]
        assert len(three) == 3 and all(len(t) == 20 for t in three)
        assert len({tuple(t) for t in three}) == 3, "the completions of one request must differ"


def test_stop_strings_inside_a_drafted_block(plain: Outcome, drafted: Outcome) -> None:
    assert drafted.results[5] == plain.results[5]
    assert any(r["finish_reason"] == "stop" for r in drafted.results[5])


def test_max_tokens_inside_a_block(drafted: Outcome) -> None:
    assert all(len(t) == 7 for t in drafted.tokens(6))


def test_max_model_len_inside_a_block(plain: Outcome, drafted: Outcome) -> None:
    assert drafted.tokens(7) == plain.tokens(7)
    assert all(len(t) == 256 - 247 for t in drafted.tokens(7))


def test_seeded_requests_do_not_depend_on_their_batch(prompts: list[list[int]], drafted: Outcome) -> None:
    """The same seeds alone in the engine, in another order, give the same tokens."""
    seeded = {"temperature": 1.0, "max_tokens": 32, "ignore_eos": True, "seed": 7}
    alone = run_child({**ours(3), "max_num_seqs": 1}, [{"prompts": prompts[1::-1], "params": seeded}])
    assert alone.tokens(0)[::-1] == drafted.tokens(8)


@pytest.mark.parametrize("job", [9, 10, 11, 12, 13])
def test_processors_see_each_draft_prefix(job: int, plain: Outcome, drafted: Outcome) -> None:
    """Greedy with penalties, bad words, min_tokens, biases: token for token."""
    assert drafted.tokens(job) == plain.tokens(job)


def test_min_tokens_forbids_the_end_up_to_its_own_position(plain: Outcome) -> None:
    """The case above means something: ends come right behind the tenth token."""
    lengths = [len(t) for t in plain.tokens(12)]
    assert min(lengths) < 14 and all(n > 10 for n in lengths)


def test_a_request_without_any_possible_token_ends_by_itself(drafted: Outcome) -> None:
    """Its rows are nothing but -inf; it gets the documented token 0, here the end. The other tests of this engine show
    that its neighbours never noticed."""
    for result in drafted.results[14]:
        assert result["token_ids"] == [0] and result["finish_reason"] == "stop"


def test_logprobs_of_chosen_tokens(prompts: list[list[int]]) -> None:
    """`logprob_token_ids`: for each token that came out, the logprobs of the ids that were asked for."""
    wanted = [5, 77, 300]
    params = {"temperature": 1.0, "max_tokens": 24, "ignore_eos": True, "logprob_token_ids": wanted}
    outcome = run_child(ours(3), [{"prompts": prompts[:3], "params": params}])
    for prompt, result in zip(prompts[:3], outcome.results[0], strict=True):
        expected = reference_rows(prompt, result["token_ids"]).log_softmax(-1)
        assert len(result["logprobs"]) == 24
        for row, token, values in zip(expected, result["token_ids"], result["logprobs"], strict=True):
            assert {int(t) for t in values} == {token, *wanted}
            assert all(abs(row[int(t)].item() - value) < 1e-3 for t, value in values.items())


def test_seeded_prompts_may_come_in_chunks(prompts: list[list[int]]) -> None:
    """The same tokens as from whole prompts, which takes the same drafts, and so the head's cache to be the same.

    vLLM's own CPU runner stops at the first chunk of a seeded prompt ("CPU Generator does not use offset"), and its
    proposer puts the prompt's last token into the head's cache at each chunk's end.
    """
    jobs = [{"prompts": [(p * 9)[:200] for p in prompts[:3]], "params": SEEDED}]
    whole, chunked = (
        run_child({**ours(3), "max_num_seqs": 8, "max_num_batched_tokens": budget}, jobs) for budget in (1024, 64)
    )
    assert chunked.tokens(0) == whole.tokens(0)
    accepted = "specdec_accepted_tokens_total{0}"
    assert chunked.specdec[accepted] == whole.specdec[accepted]


def test_counters_agree_with_vllms_own(drafted: Outcome) -> None:
    ours_drafted = sum(v for k, v in drafted.specdec.items() if k.startswith("specdec_draft_tokens_total"))
    ours_accepted = sum(v for k, v in drafted.specdec.items() if k.startswith("specdec_accepted_tokens_total"))
    assert ours_drafted == drafted.metrics["vllm:spec_decode_num_draft_tokens"] > 0
    assert drafted.specdec["specdec_lost_draft_rows_total"] == 0
    assert ours_accepted == drafted.metrics["vllm:spec_decode_num_accepted_tokens"] > 0
