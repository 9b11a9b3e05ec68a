"""What a request may ask for, what it may not, and in which words it is told."""

import json
import math
from typing import Any

import pytest

from specdec.errors import SpecdecError
from specdec.request import Request, parse_request
from specdec.steering.program import Catalog

CATALOG = Catalog(
    width=4,
    saes={"mid": (5, 100), "late": (9, 50)},
    vectors={"calm": 5},
    layers=frozenset({3}),
    presets={"gentle": {"steer": [{"vector": "calm", "add": 2}], "strength": 0.5, "on": "generated"}},
    max_edits=2,
    max_strength=50,
)
ONE_SAE = Catalog(width=4, saes={"mid": (5, 100)})


def edits(*steer: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"steer": list(steer), **rest}


def test_text_and_object_are_one_program() -> None:
    raw = edits({"sae": "mid", "feature": 3, "add": 2}, on="generated")
    program = CATALOG.program(raw)
    assert CATALOG.program(json.dumps(raw)) == program
    carried = parse_request(Request(program).canonical()).steer
    assert carried == program and carried is not None and carried.key == program.key
    assert program.steer[0].layer == 5
    assert program.on == "generated"


def test_programs_that_differ_have_different_keys() -> None:
    raw = {"sae": "mid", "feature": 3, "add": 2}
    programs = [
        CATALOG.program(p)
        for p in (
            edits(raw), edits(raw, on="generated"), edits({**raw, "add": 2.5}), edits({**raw, "feature": 4}),
            edits({**raw, "if": {"feature": 4}}), edits({**raw, "if": {"feature": 4, "above": 1}}),
            edits({"vector": "calm", "add": 2}), edits({"vector": "calm", "add": 2, "norm": "residual"}),
            edits({"vector": [1, 2, 3, 4], "layer": 3, "add": 2}),
        )
    ]  # fmt: skip
    assert len({program.key for program in programs}) == len(programs)


def test_the_only_sae_needs_no_name() -> None:
    program = ONE_SAE.program(edits({"feature": 3, "ablate": True, "if": {"feature": 7}}))
    [edit] = program.steer
    assert (edit.sae, edit.layer, edit.value, edit.change) == ("mid", 5, 0.0, "ablate")
    assert edit.gate is not None and edit.gate.sae == "mid"


def test_strength_multiplies_what_is_added_and_nothing_else() -> None:
    raw = edits({"sae": "mid", "feature": 3, "add": 2}, {"sae": "mid", "feature": 4, "clamp": 2}, strength=3)
    assert [edit.value for edit in CATALOG.program(raw).steer] == [6, 2]


def test_presets() -> None:
    program = CATALOG.program({"preset": "gentle"})
    assert [edit.value for edit in program.steer] == [1.0]
    assert program.on == "generated"
    stronger = CATALOG.program({"preset": "gentle", "strength": 4, "on": "all"})
    assert [edit.value for edit in stronger.steer] == [4.0]
    assert stronger.on == "all"


def test_broken_presets_are_named() -> None:
    with pytest.raises(SpecdecError, match=r"steering.presets.odd: steer\[0\]: unknown vector 'loud'"):
        Catalog(width=4, presets={"odd": edits({"vector": "loud", "add": 1})}).check_presets()


FEATURE = {"sae": "mid", "feature": 3}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("{", "holds no JSON"),
        ("[]", "the steering program is"),
        ({}, 'either "steer", a list of edits, or "preset"'),
        (edits(), '"steer" is empty'),
        ({"steer": [], "preset": "gentle"}, 'either "steer"'),
        ({"preset": "harsh"}, "unknown preset 'harsh': this server has gentle"),
        (edits({**FEATURE, "add": 1}, tone="soft"), 'unknown key "tone"'),
        (edits({**FEATURE, "adds": 1}), 'unknown key "steer.0.adds"'),
        (edits(FEATURE), "needs exactly one of add, scale, ablate, clamp, cap; it has none"),
        (edits({**FEATURE, "add": 1, "cap": 2}), "it has add and cap"),
        (edits({"add": 1}), 'needs either "feature"'),
        (edits({**FEATURE, "vector": "calm", "add": 1}), 'needs either "feature"'),
        (edits({"sae": "mid", "feature": 100, "add": 1}), "feature 100 is out of range: SAE 'mid' has 0 to 99"),
        (edits({"sae": "mid", "feature": -1, "add": 1}), "steer.0.feature is -1"),
        (edits({"sae": "early", "feature": 1, "add": 1}), "unknown SAE 'early': this server has mid, late"),
        (edits({"feature": 1, "add": 1}), 'say which SAE with "sae": this server has mid, late'),
        (edits({**FEATURE, "layer": 6, "add": 1}), "SAE 'mid' reads layer 5, not 6"),
        (edits({"vector": "loud", "add": 1}), "unknown vector 'loud': this server has calm"),
        (edits({"vector": "calm", "layer": 3, "add": 1}), "vector 'calm' is of layer 5, not 3"),
        (edits({"vector": [1, 2], "layer": 3, "add": 1}), "the vector has 2 numbers, this model's width is 4"),
        (edits({"vector": [0, 0, 0, 0], "layer": 3, "add": 1}), "no direction"),
        (edits({"vector": [1, 2, 3, math.nan], "layer": 3, "add": 1}), "steer.0.vector"),
        (edits({"vector": [1, 2, 3, 4], "layer": 2, "add": 1}), "cannot act at layer 2: this server has 3"),
        (edits({"vector": [1, 2, 3, 4], "add": 1}), "cannot act at layer None"),
        (edits({"sae": "mid", "vector": "calm", "add": 1}), '"sae" belongs to a feature'),
        (edits({**FEATURE, "add": math.nan}), "steer.0.add is nan"),
        (edits({**FEATURE, "add": math.inf}), "steer.0.add is inf"),
        (edits({**FEATURE, "add": "much"}), "steer.0.add is 'much'"),
        (edits({**FEATURE, "add": 51}), "add 51 is larger than this server's max_strength 50"),
        (edits({**FEATURE, "clamp": -51}), "clamp -51 is larger"),
        (edits({**FEATURE, "add": 30}, strength=2), "add 60 is larger"),
        (edits({**FEATURE, "add": 1, "when": "active"}), '"when": "active" belongs to the clamp'),
        (edits({**FEATURE, "add": 1, "norm": "residual"}), '"norm": "residual" belongs to the add of a vector'),
        (edits({**FEATURE, "add": 1, "if": {"sae": "late", "feature": 1}}), '"if" reads layer 9, the edit acts at 5'),
        (edits({**FEATURE, "add": 1, "if": {"feature": 100}}), "feature 100 is out of range"),
        (edits({**FEATURE, "add": 1}, {**FEATURE, "scale": 2}), "feature 3 is edited twice"),
        (edits(*({"sae": "mid", "feature": i, "add": 1} for i in range(3))), "3 edits at layer 5: this server"),
        (edits({**FEATURE, "add": 1}, on="prompt"), "on is 'prompt'"),
    ],
)  # fmt: skip
def test_what_is_refused(raw: Any, says: str) -> None:
    with pytest.raises(SpecdecError) as refused:
        CATALOG.program(raw)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
