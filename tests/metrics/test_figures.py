"""A request's figures, by hand-worked steps."""

import numpy as np
import pytest

from specdec.metrics.figures import FiguresCollector


def test_hand_worked_steps() -> None:
    collector = FiguresCollector()
    collector.take(0, 0, [], [2.0])  # the first token: no drafts yet
    collector.take(3, 1, [0.5, 1.0], [1.0, 0.0])  # the second draft is rejected
    collector.take(2, 2, [1.0, 0.25], [1.0, 1.0, 4.0])  # all accepted, and a bonus token
    found = collector.give(6)
    assert found.tokens == 6 and found.steps == 2
    assert found.drafted.tolist() == [2, 2, 1] and found.accepted.tolist() == [2, 1, 0]
    assert found.reached.tolist() == [2, 2, 0]
    assert found.acceptance_length == 2.5
    assert found.expected_acceptance[:2].tolist() == [0.75, 0.625] and np.isnan(found.expected_acceptance[2])
    assert found.entropy == pytest.approx(9 / 6)
    assert found.as_json()["expected_acceptance"] == [0.75, 0.625, None]


def test_tokens_behind_a_stop_have_no_part_in_the_entropy() -> None:
    collector = FiguresCollector()
    collector.take(2, 2, [1.0, 1.0], [1.0, 3.0, 100.0])
    assert collector.give(2).entropy == 2.0


def test_before_any_step_there_are_no_numbers() -> None:
    found = FiguresCollector().give(0).as_json()
    assert found["acceptance_length"] is None and found["entropy"] is None and found["drafted"] == []
