"""Steering in the real engine: every row is steered as the program's words say, by its own request's program alone."""

from typing import Any

import pytest

from tests.engines.vllm.engine import ours, run_child
from tests.engines.vllm.laws import LEVEL, TOKENS, p_values
from tests.engines.vllm.steering.reference import greedy, load_model
from tests.engines.vllm.steering.served import PROGRAMS, Served, make_served, request, serve
from tests.engines.vllm.steering.test_reading import LATE, MIDDLE, TOP, expect, reading


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("saes"), max_programs=3)


def requests(prompts: list[list[int]]) -> list[dict[str, Any]]:
    """One for each program, and two without."""
    return [request(ids, program) for ids, program in zip(prompts, [None, *PROGRAMS, None], strict=False)]


@pytest.fixture(scope="module")
def answers(served: Served, prompts: list[list[int]]) -> list[list[dict[str, Any]]]:
    """All requests in one batch, then each alone, in one engine with three places for programs."""
    together = requests(prompts)
    return serve([together, *([one] for one in together)], served, enable_prefix_caching=False).results


def tokens(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [answer["token_ids"] for answer in answers]


def test_each_request_gets_what_it_gets_alone(answers: list[list[dict[str, Any]]]) -> None:
    """Seven programs in a batch with three places: those that find none wait."""
    assert tokens(answers[0]) == [tokens(alone)[0] for alone in answers[1:]]


def test_unsteered_requests_are_as_without_steering(
    answers: list[list[dict[str, Any]]], prompts: list[list[int]]
) -> None:
    plain = tokens(serve([[request(ids) for ids in prompts[: len(PROGRAMS) + 2]]], None).results[0])
    changed = [mine != theirs for mine, theirs in zip(tokens(answers[0]), plain, strict=True)]
    assert not changed[0] and not changed[-1]
    # A text that leaves no choice, as a list of constants, stays as it is under a program too.
    assert sum(changed) >= len(PROGRAMS) - 1


def test_the_text_is_that_of_the_steered_model(
    answers: list[list[dict[str, Any]]], served: Served, prompts: list[list[int]]
) -> None:
    """By transformers, without cache, drafts or batch: prompt, decode, draft and bonus rows are all steered."""
    model = load_model()
    for ids, program, found in zip(prompts[1:], PROGRAMS, tokens(answers[0])[1:], strict=False):
        assert found == greedy(model, ids, served.program(program), served, len(found))


def reads(prompts: list[list[int]]) -> list[dict[str, Any]]:
    asked = [
        reading(MIDDLE, prompt=True), reading(MIDDLE, PROGRAMS[0]), reading(LATE, PROGRAMS[2], prompt=True),
        reading(TOP, PROGRAMS[1]),
    ]  # fmt: skip
    return [request(ids, one) for ids, one in zip(prompts, asked, strict=False)]


@pytest.fixture(scope="module")
def compiled(served: Served, prompts: list[list[int]]) -> list[list[dict[str, Any]]]:
    """Programs, then readings, in one engine."""
    return serve([requests(prompts), reads(prompts)], served, enforce_eager=False).results


def test_compiled(answers: list[list[dict[str, Any]]], compiled: list[list[dict[str, Any]]]) -> None:
    assert tokens(compiled[0]) == tokens(answers[0])


def test_reading_compiled(compiled: list[list[dict[str, Any]]], served: Served, prompts: list[list[int]]) -> None:
    model = load_model()
    for asked, answer in zip(reads(prompts), compiled[1], strict=True):
        expect(answer, asked, served, model, least=24)


def test_without_speculation(answers: list[list[dict[str, Any]]], served: Served, prompts: list[list[int]]) -> None:
    alone = serve([requests(prompts)], served, speculative_config=None).results[0]
    assert tokens(alone) == tokens(answers[0])


def test_preempted(answers: list[list[dict[str, Any]]], served: Served, prompts: list[list[int]]) -> None:
    """A KV cache too small for the batch: requests lose their blocks, and are computed again under their programs."""
    many = [
        request(ids, program, max_tokens=24) for ids, program in zip(prompts, [None, *PROGRAMS[:3]] * 4, strict=False)
    ]
    small = {"block_size": 32, "num_gpu_blocks_override": 20, "enable_prefix_caching": False}
    found = serve([many], served, **small)
    assert found.metrics["vllm:num_preemptions"] > 0, "nothing was preempted: the test would prove nothing"
    assert tokens(found.results[0]) == tokens(serve([many], served, enable_prefix_caching=False).results[0])


def test_steered_speculation_is_lossless(served: Served, prompts: list[list[int]]) -> None:
    """The joint law of five tokens under four programs and none, with three drafts and without speculation."""
    jobs = [
        {
            "prompts": [prompts[number][:8]], "repeat": 700,
            "params": {
                "temperature": 1.0, "top_k": 3, "max_tokens": TOKENS, "ignore_eos": True,
                **({"extra_args": {"specdec": program}} if program else {}),
            },
        }
        for number, program in enumerate([None, PROGRAMS[0], PROGRAMS[2], PROGRAMS[4]])
    ]  # fmt: skip
    roomy = {"steering": {**served.settings["steering"], "max_programs": 8}}
    outcome = run_child(ours(3, settings=roomy), jobs)
    baseline = run_child({**ours(3, settings=roomy), "speculative_config": None}, jobs)
    assert min(p_values(outcome, baseline)) > LEVEL
    assert outcome.specdec["specdec_accepted_tokens_total{0}"] > 0
    unsteered = [{**job, "params": {k: v for k, v in job["params"].items() if k != "extra_args"}} for job in jobs[1:]]
    assert max(p_values(outcome, run_child(ours(3), [jobs[0], *unsteered]))[1:]) < LEVEL, "the programs must show"
