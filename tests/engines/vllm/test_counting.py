"""Counting for /metrics, switched off and on in an engine that runs."""

from typing import Any

import pytest

from specdec.metrics.cells import EVERY
from tests.engines.vllm.engine import BASE, ask_child, ours

CHILD = "tests.engines.vllm.counting_child:main"
EXACT, PHASE = "specdec_exact_acceptance_rows_total{0}", "specdec_phase_seconds_count{draft}"


def rounds(prompts: list[list[int]], counting: list[bool | None], **settings: Any) -> Any:
    return ask_child({"engine": {**BASE, **ours(settings=settings)}, "prompts": prompts, "counting": counting}, CHILD)


def test_off_stands_still_and_on_goes_on(prompts: list[list[int]]) -> None:
    found = rounds(prompts[:4], [None, False, True])
    first, off, on = (found.metrics[str(number)] for number in range(3))
    assert first["specdec_verify_steps_total"] > 2 * EVERY < first[PHASE] and first[EXACT] > 0
    assert off == first, "nothing is counted, looked at or timed"
    for name in ("specdec_verify_steps_total", "specdec_accepted_tokens_total{0}", EXACT, PHASE):
        # The same steps again; those that are looked at exactly come at other times.
        assert on[name] == pytest.approx(2 * first[name], rel=0.5 if name == EXACT else 0.05)
    assert found.tokens(0) == found.tokens(1) == found.tokens(2)


def test_an_engine_without_metrics_has_none_to_switch_on(prompts: list[list[int]]) -> None:
    found = rounds(prompts[:2], [None, True], metrics={"enabled": False})
    assert found.metrics == {"0": {}, "1": {}}
    assert found.tokens(0) == found.tokens(1)
