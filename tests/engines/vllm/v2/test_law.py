"""The law of what the V2 adapter emits, against the exact one of a toy model (toy.py), and faults that must show.

Each case: thousands of requests, seeded and not, in steps with truncated drafts, requests left out, resumed and broken
off. Compared is the joint law of a request's five tokens given its prompt, by chi-square against the exact cell
probabilities; see specdec/conformance/statistics.py for the level.
"""

import json
from itertools import product

import pytest
import torch

from specdec.conformance.statistics import LEVEL, chi_square
from specdec.drafting import BUCKETS, bucket_of
from specdec.sampling import filtered_logits
from tests.engines.vllm.v2.engine import FORKS
from tests.engines.vllm.v2.toy import LENGTH, STARTS, Result, V, tables

FILTERED = {"temperature": 0.8, "top_k": 4, "top_p": 0.9, "min_p": 0.05}
WIDE = {"temperature": 1.2, "top_k": 3}
CASES = {
    "token": {"settings": FILTERED},
    "block": {"settings": WIDE, "method": "block", "draft_scale": 1.5},
    "bound on kept rows": {"settings": WIDE, "places": 10, "draft_scale": 0.5},
    "rows kept as they were before they were scaled": {
        "settings": WIDE,
        "fault": "rows kept as they were before they were scaled",
        "draft_scale": 0.5,
    },
    "rows by place in the batch": {"settings": WIDE, "fault": "rows by place in the batch"},
    "one number for all drafts": {"settings": WIDE, "fault": "one number for all drafts"},
    "rows of an earlier step": {"settings": WIDE, "fault": "rows of an earlier step"},
}
RIGHT = [name for name, case in CASES.items() if "fault" not in case]


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    pytest.importorskip("vllm")
    pytest.importorskip("triton")
    done = FORKS.run("tests.engines.vllm.v2.toy:main", list(CASES.values()))
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: Result(**result) for name, result in zip(CASES, found, strict=True)}


def p_value(result: Result, settings: dict) -> float:
    """The smallest over the prompts' last tokens."""
    columns = [settings["temperature"], settings.get("top_k", 0), settings.get("top_p", 1.0), settings.get("min_p", 0)]
    dtypes = [torch.float32, torch.int32, torch.float32, torch.float32]
    each = [torch.full((V,), x, dtype=d) for x, d in zip(columns, dtypes, strict=True)]
    p = filtered_logits(tables()[0], *each).double().softmax(-1)
    values = []
    for start in range(STARTS):
        cells = {}
        for tokens in product(range(V), repeat=LENGTH):
            probability = 1.0
            for before, token in zip((start, *tokens), tokens, strict=False):
                probability *= float(p[before, token])
            cells[tokens] = probability
        counts = dict.fromkeys(cells, 0)
        for first, tokens in zip(result.first, result.outputs, strict=True):
            if first == start:
                counts[tuple(tokens)] += 1
        values.append(chi_square(torch.tensor(list(counts.values())), torch.tensor(list(cells.values()))).p_value)
    return min(values)


@pytest.mark.parametrize("name", RIGHT)
def test_the_law_is_the_targets(name: str, results: dict[str, Result]) -> None:
    assert p_value(results[name], CASES[name]["settings"]) > LEVEL
    assert results[name].unfinished_emitted == 0, "a chunk of a prompt before its last one decides nothing"


@pytest.mark.parametrize("name", [name for name in CASES if name not in RIGHT])
def test_planted_faults_are_caught(name: str, results: dict[str, Result]) -> None:
    assert p_value(results[name], CASES[name]["settings"]) < LEVEL


def test_draft_scales_follow_the_requests_without_a_seed(results: dict[str, Result]) -> None:
    """Down from the head's stored scales, which are too sharp; those of the seeded half stay."""
    scales, place = results["block"].draft_scales, bucket_of(**WIDE)
    assert scales[: len(BUCKETS)] == [1.5] * len(BUCKETS)
    assert place is not None and scales[len(BUCKETS) + place] < 1.4


def test_requests_find_their_own_rows(results: dict[str, Result]) -> None:
    """None is lost over steps left out and slots that change hands, and so drafts are accepted; a bound loses some."""
    for name in ("token", "block"):
        assert results[name].lost == 0
        assert results[name].accepted / results[name].drafts > 0.4
    bounded = results["bound on kept rows"]
    assert 0.1 < bounded.lost / bounded.drafts < 0.9
