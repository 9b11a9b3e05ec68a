"""Reading in the real engine: each token's entry is what transformers has for the state that it was sampled from."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engines.vllm.engine import Outcome
from tests.engines.vllm.steering.reference import activations, load_model
from tests.engines.vllm.steering.served import PROGRAMS, Served, make_served, request, serve
from tests.engines.vllm.test_generation import FREQUENT

CHOSEN = [5, 9, 30, 211]
MIDDLE = {"sae": "middle", "features": CHOSEN}
LATE = {"sae": "late", "features": CHOSEN}  # TopK: what a feature is depends on all others
TOP = {"sae": "late", "top": 4}
SAMPLED = {"temperature": 1.0, "seed": 3, "n": 2}
# Fewer tokens a step than a prompt has: prompts come in chunks, and beside others' drafts.
SMALL = {"max_num_seqs": 16, "max_num_batched_tokens": 48, "block_size": 32}


def reading(read: dict[str, Any], program: dict[str, Any] | None = None, **prompt: bool) -> dict[str, Any]:
    return {**(program or {}), "read": {**read, **prompt}}


def requests(prompts: list[list[int]]) -> dict[str, dict[str, Any]]:
    long, stop = [token for ids in prompts[:4] for token in ids], {"stop": [")", "\n", ","]}
    return {
        "nothing": request(prompts[0]),
        "chosen": request(prompts[1], reading(MIDDLE)),
        "steered": request(prompts[2], reading(MIDDLE, PROGRAMS[0])),
        "steered elsewhere": request(prompts[2], reading(LATE, PROGRAMS[0], prompt=True)),
        "generated only": request(prompts[3], reading(LATE, PROGRAMS[2], prompt=True)),
        "top": request(prompts[4], reading(TOP, prompt=True)),
        "top, steered": request(prompts[5], reading(TOP, PROGRAMS[3])),
        "sampled": request(prompts[6], reading(MIDDLE, prompt=True), **SAMPLED),
        "stop string": request(prompts[7], reading(MIDDLE), **stop),
        "stop string, again": request(prompts[8], reading(TOP), **stop),
        "stop token": request(prompts[9], reading(LATE), ignore_eos=False, stop_token_ids=FREQUENT[:40]),
        "long": request(long, reading(MIDDLE, prompt=True)),
        "long, top": request(long[::-1], reading(TOP, PROGRAMS[1], prompt=True)),
        "program alone": request(prompts[10], PROGRAMS[4]),
    }


def again(prompts: list[list[int]]) -> dict[str, dict[str, Any]]:
    """Prompts that the cache has by now."""
    every = requests(prompts)
    return {"long": every["long"], "long, response alone": request(every["long"]["ids"], reading(MIDDLE))}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def outcome(served: Served, prompts: list[list[int]]) -> Outcome:
    without = [requests(prompts)[name] for name in ("nothing", "program alone")]
    rounds = [list(requests(prompts).values()), list(again(prompts).values()), without]
    return serve(rounds, served, **SMALL)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model()


def expect(answer: dict[str, Any], asked: dict[str, Any], served: Served, model: Any, least: int = 4) -> None:
    """Every completion's readings, by transformers, to 1e-3 of the largest activation."""
    given = asked["params"]["extra_args"]["specdec"]
    read = given["read"]
    steer = {key: value for key, value in given.items() if key != "read"}
    program = served.program(steer) if steer else None
    assert len(answer["all"]) == len(answer["readings"]) == asked["params"].get("n", 1)
    for tokens, found in zip(answer["all"], answer["readings"], strict=True):
        assert len(tokens) >= least
        response, prompt = activations(model, asked["ids"], tokens, served, read["sae"], program)
        near = {"atol": 1e-3 * float(torch.maximum(response.max(), prompt.max())), "rtol": 0}
        if "top" in read:
            each = np.zeros(response.shape)
            for row, entry in zip(each, found["top"], strict=True):
                for feature, value in entry:
                    row[feature] = value
            np.testing.assert_allclose(each, only_top(response, read["top"]), **near)
            spans = [(found, only_top(response, read["top"])), (found.get("prompt"), only_top(prompt, read["top"]))]
        else:
            np.testing.assert_allclose(found["activations"], response[:, read["features"]], **near)
            spans = [(found, response.numpy()), (found.get("prompt"), prompt.numpy())]
        assert (found.get("prompt") is not None) == read.get("prompt", False)
        for span, expected in spans:
            if span is not None:
                expect_pooled(span, expected, read, near)


def only_top(rows: Tensor, k: int) -> np.ndarray:
    """All but the k largest of each row set to 0."""
    values, ids = rows.topk(k, dim=-1)
    return torch.zeros_like(rows).scatter_(-1, ids, values).numpy()


def expect_pooled(span: dict[str, Any], rows: np.ndarray, read: dict[str, Any], near: dict[str, float]) -> None:
    assert span["tokens"] == len(rows)
    most, share = rows.max(axis=0), (rows > 0).mean(axis=0)
    np.testing.assert_allclose(span["max"], most[span["features"]], **near)
    np.testing.assert_allclose(span["frequency"], share[span["features"]], atol=1e-5)
    if "top" in read:
        np.testing.assert_allclose(span["max"], np.sort(most)[::-1][: read["top"]], **near)
    else:
        assert span["features"] == read["features"]


def test_readings_are_those_of_the_emitted_text(
    outcome: Outcome, served: Served, model: Any, prompts: list[list[int]]
) -> None:
    assert (
        outcome.metrics["vllm:spec_decode_num_draft_tokens"] > outcome.metrics["vllm:spec_decode_num_accepted_tokens"]
    ), "no draft was rejected: the test would prove nothing"
    asked = requests(prompts)
    answers = dict(zip(asked, outcome.results[0], strict=True))
    for name in asked:
        if name not in ("nothing", "program alone"):
            expect(answers[name], asked[name], served, model, least=1 if name.startswith("stop") else 24)
    stopped = [len(answers[name]["token_ids"]) for name in ("stop string", "stop string, again", "stop token")]
    assert max(stopped) > 1 and min(stopped) < 24, "nothing was cut off: the test would prove nothing"


def test_prompts_in_the_prefix_cache(outcome: Outcome, served: Served, model: Any, prompts: list[list[int]]) -> None:
    """Positions that are found there are not computed, so those that are to be pooled are not looked for."""
    asked = again(prompts)
    pooled, alone = (outcome.results[1][i] for i in range(2))
    assert pooled["cached"] == 0 and alone["cached"] >= 64
    for name, answer in zip(asked, (pooled, alone), strict=True):
        expect(answer, asked[name], served, model)


def test_others_are_unaltered(outcome: Outcome, prompts: list[list[int]]) -> None:
    answers = dict(zip(requests(prompts), outcome.results[0], strict=True))
    for name, alone in zip(("nothing", "program alone"), outcome.results[2], strict=True):
        assert answers[name]["token_ids"] == alone["token_ids"]
        assert answers[name]["readings"] == [None]
    assert {answer["kv"] for answer in answers.values()} == {None}


def test_preempted(served: Served, model: Any, prompts: list[list[int]]) -> None:
    """A KV cache too small for the batch: some are computed again, prompts in chunks among them."""
    long = [token for ids in prompts[20:23] for token in ids]
    reads = [reading(MIDDLE, prompt=True), reading(TOP, PROGRAMS[0], prompt=True)]
    asked = [request(ids, read) for ids, read in zip([*prompts[:11], long], reads * 6, strict=True)]
    small = {**SMALL, "num_gpu_blocks_override": 14}
    found = serve([asked], served, **small)
    assert found.metrics["vllm:num_preemptions"] > 0, "nothing was preempted: the test would prove nothing"
    for one, answer in zip(asked, found.results[0], strict=True):
        expect(answer, one, served, model)


def test_refused(served: Served, prompts: list[list[int]]) -> None:
    """A server that reads nothing says so; the rest of what is refused is in tests/steering/test_reading.py."""
    settings = {"steering": {**served.settings["steering"], "max_read": 0}}
    blind = Served(settings, served.saes, served.vectors, served.catalog)
    [[refused, steered]] = serve(
        [[request(prompts[0], reading(MIDDLE)), request(prompts[0], PROGRAMS[0])]], blind
    ).results  # fmt: skip
    assert refused["refused"] == "this server does not read features: steering.max_read is 0 in its settings"
    assert len(steered["token_ids"]) == 24
