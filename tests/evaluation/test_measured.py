"""Figures from an engine's counters."""

import pytest

from specdec.errors import SpecdecError
from specdec.evaluation.measured import Measured


def part(steps, accepted, reached, expected):
    beyond = [0.0] * 14  # counters have more positions than drafts
    return {
        "steps": [steps], "accepted": [*accepted, *beyond], "reached": [*reached, *beyond],
        "expected_sum": [*expected, *beyond],
    }  # fmt: skip


def test_figures_of_parts():
    parts = [part(10, [8, 4], [10, 8], [7.5, 4.5]), part(30, [12, 6], [30, 12], [14.0, 5.0])]
    found = Measured.of(parts, 2)
    assert found.length == pytest.approx(70 / 40) and found.steps == 40
    assert found.observed == pytest.approx([20 / 40, 10 / 20])
    assert found.expected == pytest.approx([21.5 / 40, 9.5 / 20])
    # Two parts of (22, 10) and (48, 30) around 1.75: residuals 4.5 and -4.5.
    assert found.error == pytest.approx(1.96 * (2 * 4.5**2 * 2) ** 0.5 / 40)


def test_nothing_was_drafted():
    with pytest.raises(SpecdecError, match="the engine verified no drafts"):
        Measured.of([part(0, [0, 0], [0, 0], [0, 0])], 2)
