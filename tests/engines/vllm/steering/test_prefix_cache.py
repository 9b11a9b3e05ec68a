"""Blocks are shared by those who would compute the same, and by no one else."""

from typing import Any

import pytest

from tests.engines.vllm.steering.served import PROGRAMS, Served, make_served, request, serve

PREFIX = 512
LONG = {"max_model_len": 700, "max_num_batched_tokens": 2048, "block_size": 32}
ALL, GENERATED = PROGRAMS[0], PROGRAMS[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def prefix(prompts: list[list[int]]) -> list[int]:
    """512 tokens."""
    return [token for ids in prompts for token in ids][:PREFIX]


def rounds(prefix: list[int], prompts: list[list[int]], reply: list[int]) -> dict[str, list[dict[str, Any]]]:
    """One request after the other by what is special about it, with another first half than the others' where a story
    begins. reply: generated under GENERATED behind the prefix."""
    stories = {"plain first": prefix, "steered first": prefix[::-1]}
    plain, steered = request, lambda ids: request(ids, ALL)
    end = prompts[0][:5]
    found = {}
    for name, ids in stories.items():
        order = [plain, steered] if name == "plain first" else [steered, plain]
        for number, make in enumerate([*order, *order]):
            found[f"{name}, {number}"] = [make([*ids, *end])]
    found["another program"] = [request([*prefix, *end], PROGRAMS[1])]
    found["generated only"] = [request([*prefix, *end], GENERATED, max_tokens=80)]
    for how, program in {"without a program": None, "with the same program": GENERATED}.items():
        found[f"next turn {how}"] = [request([*prefix, *end, *reply, *end], program)]
    found["salted"] = [request([*prefix, *end], ALL, salt="mine")]
    found["salted again"] = [request([*prefix, *end], ALL, salt="mine")]
    return found


@pytest.fixture(scope="module")
def answers(served: Served, prefix: list[int], prompts: list[list[int]]) -> dict[str, dict[str, Any]]:
    """By name: tokens with the cache on and off, and how many were found in it."""
    ask = [request([*prefix, *prompts[0][:5]], GENERATED, max_tokens=80)]
    reply = serve([ask], served, **LONG, enable_prefix_caching=False).results[0][0]["token_ids"]
    asked = rounds(prefix, prompts, reply)
    on, off = (serve(list(asked.values()), served, **LONG, enable_prefix_caching=e).results for e in (True, False))
    return {
        name: {"on": a["token_ids"], "off": b["token_ids"], "cached": a["cached"]}
        for name, [a], [b] in zip(asked, on, off, strict=True)
    }


def test_outputs_are_those_without_a_cache(answers: dict[str, dict[str, Any]]) -> None:
    assert {name: answer["on"] for name, answer in answers.items()} == {n: a["off"] for n, a in answers.items()}
    assert answers["plain first, 0"]["on"] != answers["plain first, 1"]["on"], "steering must show"
    assert answers["next turn without a program"]["on"] != answers["next turn with the same program"]["on"]


def test_who_shares_with_whom(answers: dict[str, dict[str, Any]]) -> None:
    cached = {name: answer["cached"] for name, answer in answers.items()}
    nothing = ["plain first, 0", "plain first, 1", "steered first, 0", "steered first, 1", "another program", "salted"]
    assert {name: cached[name] for name in nothing} == dict.fromkeys(nothing, 0)
    again = [name for name in cached if name.endswith((", 2", ", 3"))] + ["salted again"]
    assert len(again) == 5 and all(cached[name] >= PREFIX - 64 for name in again), cached


def test_programs_for_generated_tokens_share_prompts_and_nothing_else(answers: dict[str, dict[str, Any]]) -> None:
    """Their prompts are computed as everyone's. In the next turn the reply is part of a prompt, which is not steered:
    its blocks must not be found, with the program or without it."""
    assert answers["generated only"]["cached"] >= PREFIX - 64
    first = answers["next turn without a program"]["cached"]
    assert PREFIX - 64 <= first <= PREFIX + 5
    # The turn before, whose prompt was the same, has left its blocks.
    assert answers["next turn with the same program"]["cached"] >= PREFIX + 32
