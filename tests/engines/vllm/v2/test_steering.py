"""Steering and reading in the V2 runner, under asynchronous scheduling with two steps in flight: as in the V1 runner.

The kernels run in Triton's interpreter (interpreter.py); what steers and reads there is what does so on any CPU.
"""

from typing import Any

import numpy as np
import pytest

from tests.engines.vllm.engine import Outcome, ours
from tests.engines.vllm.steering.served import PROGRAMS, Served, make_served, request, serve
from tests.engines.vllm.v2.engine import run_v2

READ = {"read": {"sae": "late", "features": [5, 9, 30, 211], "prompt": True}}
ASKED: dict[str, Any] = {
    "nothing": None,
    "all tokens": PROGRAMS[0],
    "generated tokens": PROGRAMS[2],
    "reading": READ,
    "reading, steered": {**PROGRAMS[2], "read": {"sae": "late", "top": 3}},
}
COUNT = 14  # tokens
TIGHT = {"max_num_seqs": 8, "max_num_batched_tokens": 40, "block_size": 32}  # prompts in chunks


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def first(served: Served, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """The V1 runner's answers."""
    asked = [request(ids, program, max_tokens=COUNT) for ids, program in zip(prompts, ASKED.values(), strict=False)]
    return serve([asked], served, **TIGHT).results[0]


@pytest.fixture(scope="module")
def second(served: Served, prompts: list[list[int]]) -> Outcome:
    jobs = []
    for ids, program in zip(prompts, ASKED.values(), strict=False):
        asked = request(ids, program, max_tokens=COUNT)
        jobs.append({"prompts": [asked["ids"]], "params": asked["params"]})
    return run_v2({**ours(3, settings=served.settings), **TIGHT}, jobs)


def test_tokens(first: list[dict[str, Any]], second: Outcome) -> None:
    assert second.classes["runner"] == "vllm.v1.worker.gpu.model_runner"
    assert (second.classes["scheduler"], second.classes["in_flight"]) == ("AsynchronousScheduler", "2")
    tokens = {name: job[0]["token_ids"] for name, job in zip(ASKED, second.results, strict=True)}
    assert tokens == {name: answer["token_ids"] for name, answer in zip(ASKED, first, strict=True)}


def test_readings(first: list[dict[str, Any]], second: Outcome) -> None:
    for name, job, answer in zip(ASKED, second.results, first, strict=True):
        [expected], found = answer["readings"], job[0]["readings"]
        if not name.startswith("reading"):
            assert found is None
            continue
        if "top" in expected:
            assert [[i for i, _ in token] for token in found["top"]] == [[i for i, _ in t] for t in expected["top"]]
        else:
            assert len(found["activations"]) == COUNT
            np.testing.assert_allclose(found["activations"], expected["activations"], atol=0.1)
            np.testing.assert_allclose(found["prompt"]["max"], expected["prompt"]["max"], atol=0.1)
            assert found["prompt"]["tokens"] == 28
        np.testing.assert_allclose(found["max"], expected["max"], atol=0.1)
