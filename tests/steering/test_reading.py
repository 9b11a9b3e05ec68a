"""What a request may read, and how readings are put together from what arrives step by step."""

import json
from typing import Any

import numpy as np
import pytest

from specdec.errors import SpecdecError
from specdec.request import Offer, Request, parse_request
from specdec.steering.program import Catalog
from specdec.steering.reading import Read
from specdec.steering.readings import Collector

CATALOG = Catalog(8, saes={"mid": (4, 40), "late": (9, 20)}, layers=frozenset({4}), max_read=3)
OFFER = Offer(CATALOG)
STEER = {"steer": [{"sae": "mid", "feature": 3, "add": 2}]}


def read(**asked: Any) -> Request:
    return OFFER.request({"read": asked})


def test_a_request_reads_steers_or_both() -> None:
    alone = read(sae="mid", features=[3, 1])
    assert alone.steer is None and alone.read == Read(sae="mid", features=(3, 1))
    both = OFFER.request(json.dumps({**STEER, "read": {"sae": "late", "top": 2, "prompt": True}}))
    assert both.steer == CATALOG.program(STEER) and both.read == Read(sae="late", top=2, prompt=True)
    assert OFFER.request(STEER) == OFFER.request({**STEER, "read": None}) == Request(both.steer)
    for request in (alone, both, Request(both.steer)):
        assert parse_request(request.canonical()) == request
        assert OFFER.request(request.canonical()) == request


def test_reading_changes_no_programs_key() -> None:
    both, alone = OFFER.request({**STEER, "read": {"sae": "mid", "top": 1}}), CATALOG.program(STEER)
    assert both.steer is not None and both.steer.key == alone.key


def test_the_only_sae_need_not_be_named() -> None:
    assert Offer(Catalog(8, saes={"mid": (4, 40)})).request({"read": {"top": 1}}).read == Read(sae="mid", top=1)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"sae": "mid"}, 'read needs either "features", a list of numbers, or "top", how many'),
        ({"sae": "mid", "features": [1], "top": 1}, 'read needs either "features", a list of numbers, or "top"'),
        ({"features": [1]}, 'read: say which SAE with "sae": this server has mid, late'),
        ({"sae": "wide", "top": 1}, "read: unknown SAE 'wide': this server has mid, late"),
        ({"sae": "mid", "features": [1, 40]}, "read: feature 40 is out of range: SAE 'mid' has 0 to 39"),
        ({"sae": "mid", "features": [1, -2]}, "read.features.1 is -2: "),
        ({"sae": "mid", "features": [1, 2, 1]}, "read: feature 1 is listed twice"),
        ({"sae": "mid", "features": []}, "read.features is empty"),
        ({"sae": "mid", "features": [1, 2, 3, 4]}, "read asks for 4 features: this server allows 3 (steering.max_read"),
        ({"sae": "mid", "top": 4}, "read asks for 4 features: this server allows 3"),
        ({"sae": "mid", "top": 0}, "read.top is 0: "),
        ({"sae": "mid", "top": 1, "layer": 4}, 'unknown key "read.layer" in a reading'),
        ({"sae": "mid", "features": "all"}, "read.features is 'all': "),
        ("everything", "read is 'everything': "),
    ],
)
def test_refused(asked: Any, says: str) -> None:
    with pytest.raises(SpecdecError) as refused:
        OFFER.request({**STEER, "read": asked})
    assert str(refused.value).startswith(says) and "\n" not in str(refused.value)


def test_top_of_a_small_sae() -> None:
    small = Offer(Catalog(8, saes={"mid": (4, 2)}))
    with pytest.raises(SpecdecError, match=r"read.top 3 is out of range: SAE 'mid' has 2 features"):
        small.request({"read": {"top": 3}})


def test_a_bad_program_is_refused_beside_a_reading() -> None:
    with pytest.raises(SpecdecError, match='unknown key "feature" in a steering program'):
        OFFER.request({"feature": 3, "read": {"sae": "mid", "top": 1}})


STEPS = [[[0, 2, 1], [3, 0, 0]], [[0, 0, 5]], [[0, 0, 4], [1, 0, 0], [9, 9, 9]]]  # the last token is cut off
CHOSEN = Read(sae="mid", features=(7, 8, 9))
POOLED = {"features": [7, 8, 9], "max": [3, 2, 5], "frequency": [0.4, 0.2, 0.6], "tokens": 5}


def packed(*rows: Any) -> bytes:
    return np.array(rows, dtype=np.float32).tobytes()


def test_a_whole_response() -> None:
    collector = Collector(CHOSEN)
    for step in STEPS:
        collector.take(packed(*step))
    found = collector.give(5, None)
    assert found.as_json() == {**POOLED, "activations": [*STEPS[0], *STEPS[1], *STEPS[2][:2]]}
    assert found.features == [7, 8, 9] and found.max.tolist() == [3, 2, 5]


def test_deltas_joined_are_the_whole() -> None:
    collector, parts = Collector(CHOSEN), []
    prompt = packed([1, 0, 2], [4, 0, 2])
    for step, tokens, new in zip(STEPS, (2, 3, 5), (2, 1, 2), strict=True):
        collector.take(packed(*step), *((prompt, 4) if tokens == 2 else ()))
        parts.append(collector.give(tokens, new))
    assert [len(part.activations) for part in parts] == [2, 1, 2]
    assert parts[0].as_json()["max"] == [3, 2, 1], "pooled over the response so far"
    joined = parts[0].joined(parts[1]).joined(parts[2]).as_json()
    pooled = {"features": [7, 8, 9], "max": [1, 0, 2], "frequency": [1, 0, 0.5], "tokens": 4}
    assert joined == {**POOLED, "prompt": pooled, "activations": [*STEPS[0], *STEPS[1], *STEPS[2][:2]]}


def test_deltas_that_wait_for_an_interval() -> None:
    collector = Collector(CHOSEN)
    collector.take(packed(*STEPS[0]))
    assert len(collector.give(2, 2).activations) == 2
    collector.take(packed(*STEPS[1]))
    collector.take(packed(*STEPS[2]))
    assert collector.give(5, 3).activations.tolist() == [*STEPS[1], *STEPS[2][:2]]


def test_tokens_without_readings_are_an_error() -> None:
    collector = Collector(CHOSEN)
    collector.take(packed(*STEPS[0]))
    with pytest.raises(RuntimeError, match="3 tokens, but readings of 2"):
        collector.give(3, None)


def test_top() -> None:
    """ids, then values; of the prompt ids, maxima, how many times. Features that are not active are none of the top."""
    collector = Collector(Read(sae="mid", top=2))
    collector.take(packed([5, 9, 3, 1], [9, 5, 4, 2]), packed([9, 5], [7, 0], [3, 0]), 6)
    collector.take(packed([11, 2, 2.5, 0]))
    found = collector.give(3, None)
    assert found.top == [[(5, 3.0), (9, 1.0)], [(9, 4.0), (5, 2.0)], [(11, 2.5)]]
    assert found.as_json() == {
        "features": [9, 5], "max": [4, 3], "frequency": [0.666667, 0.666667], "tokens": 3,
        "top": [[[5, 3], [9, 1]], [[9, 4], [5, 2]], [[11, 2.5]]],
        "prompt": {"features": [9], "max": [7], "frequency": [0.5], "tokens": 6},
    }  # fmt: skip
    assert found.activations.tolist() == [[3, 1], [4, 2], [2.5, 0]]
