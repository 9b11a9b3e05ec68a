"""What is learned of steps, and what is taken of those that were never seen."""

import numpy as np
import pytest

from specdec.drafting.adaptive.costs import Costs
from specdec.drafting.adaptive.curves import Curve


def learned(*steps: tuple[int, int, int], times: int = 100) -> Costs:
    """Of steps (rows, passes, requests): the target 5 ms and 0.1 ms a row, 1 ms and 0.5 ms a pass beside it."""
    costs = Costs()
    for rows, passes, requests in steps:
        for _ in range(times):
            target = 5e-3 + 1e-4 * rows
            phases = {"target": target - 1e-3, "verify": 1e-3, **({"draft": 4e-4 * passes} if passes else {})}
            costs.learn(rows, passes, requests, phases, target + 1e-3 + 5e-4 * passes)
    return costs


def test_parts_add_up_to_steps_that_were_seen() -> None:
    costs = learned((4, 0, 4), (24, 5, 4))
    assert costs.seconds(4, 0, 4) == pytest.approx(5.4e-3 + 1e-3, rel=0.01)
    assert costs.seconds(24, 5, 4) == pytest.approx(7.4e-3 + 3.5e-3, rel=0.01)
    assert costs.seconds(4, 5, 4) == pytest.approx(5.4e-3 + 3.5e-3, rel=0.01), (
        "the first step behind those without drafts"
    )


def test_numbers_of_passes_between_are_on_the_line() -> None:
    costs = learned((4, 0, 4), (32, 5, 4))
    assert costs.seconds(32, 3, 4) == pytest.approx(8.2e-3 + 2.5e-3, rel=0.01)
    assert costs.seconds(32, 7, 4) == costs.seconds(24, 5, 4), "none that is larger was seen"


def test_nothing_is_made_up_before_the_first_step() -> None:
    assert Costs().seconds(10, 3, 2) == 0 and not Costs().known(0, 1, 1)


def test_steps_without_drafts_are_known_though_they_have_no_draft_phase() -> None:
    """Their rows wait for the head. They once stayed unknown, and were tried for ever."""
    costs = learned((3, 0, 3), times=8)
    assert costs.known(0, 3, 3) and not costs.known(5, 3, 1) and not costs.known(0, 30, 1)


def test_what_is_not_near_is_asked_last() -> None:
    """Numbers of requests far apart have their own numbers of passes: the nearest in passes is not the nearest step."""
    costs = learned((4, 0, 4), (16, 5, 4), (64, 1, 64))
    assert costs.seconds(16, 3, 4) == pytest.approx(9.1e-3, rel=0.01)


def test_a_step_of_which_only_the_phases_are_known_tells_of_the_target_alone() -> None:
    costs = learned((4, 0, 4))
    for _ in range(3):
        costs.learn(4, 2, 4, {"target": 5.4e-3}, None)
    assert not costs.known(2, 4, 1)


def test_a_step_that_begins_something_tells_of_the_target_alone() -> None:
    """Its rows are those that the step before has asked for."""
    costs = learned((24, 5, 4))
    costs.learn(24, 0, 4, {"target": 7.4e-3}, 8.4e-3)
    assert not costs.known(0, 4, 1)
    costs.learn(4, 0, 4, {"target": 5.4e-3}, 6.4e-3)
    costs.learn(4, 0, 4, {"target": 5.4e-3}, 6.4e-3)
    assert costs.known(0, 4, 1) and costs.seconds(4, 0, 4) == pytest.approx(6.4e-3, rel=0.01)


def test_the_first_step_with_a_number_of_rows_says_nothing_where_others_do() -> None:
    """vLLM on a CPU compiles for it, and what is tried now and then must not look dearer for that."""
    costs = learned((32, 1, 16))
    before = costs.seconds(30, 1, 16)
    costs.learn(30, 1, 16, {"target": 1.0}, 1.5)
    assert costs.seconds(30, 1, 16) == before
    costs.learn(30, 1, 16, {"target": 0.02}, 0.021)
    assert costs.seconds(30, 1, 16) > before


def test_a_row_costs_what_the_target_takes_for_it() -> None:
    costs = learned(*((1 << power, 0, 1) for power in range(8)))
    assert costs.per_row(50) == pytest.approx(1e-4, rel=0.01)
    assert learned((16, 0, 16)).per_row(16) == 0


def test_beyond_what_was_seen_nothing_grows_faster_than_in_proportion() -> None:
    curve = Curve()
    for count, value in ((3, 0.9), (4, 1.2), (3, 0.9), (4, 4.0)) * 4:
        curve.learn(count, value)
    assert curve.at(64) <= 16.1 * curve.at(4)


def test_a_value_that_was_slow_at_first_is_forgotten_at_once() -> None:
    curve = Curve()
    for value in (50.0, 1.0, 1.0):
        curve.learn(8, value)
    assert curve.at(8) == 1.0


def test_noise_is_averaged_out() -> None:
    curve, noise = Curve(), np.random.default_rng(0)
    for _ in range(400):
        curve.learn(8, float(noise.normal(1, 0.1)))
    assert curve.at(8) == pytest.approx(1, abs=0.05)


def test_a_machine_that_slows_down_changes_no_comparison() -> None:
    """The number of passes in use once looked dearer than the others for it, and was left."""
    costs = Costs()

    def steps(passes: int, count: int, slow: float) -> None:
        for _ in range(count):
            costs.learn(4 * (1 + passes), passes, 4, {"target": 6e-3 * slow}, slow * (8e-3 + 5e-4 * passes))

    others = (0, 1, 3, 4, 5)
    for passes in (*others, 2):
        steps(passes, 30, 1.0)
    for passes in others:  # tried by turns
        steps(2, 100, 1.5)
        steps(passes, 5, 1.5)
    for passes in others:
        shown = costs.seconds(4 * (1 + passes), passes, 4) / costs.seconds(12, 2, 4)
        assert shown == pytest.approx((8 + 0.5 * passes) / 9, rel=0.03)


def test_what_one_number_of_passes_takes_is_learned_anew_when_it_is_compared() -> None:
    costs = Costs()
    for turn in range(60):
        dearer = 1.0 if turn < 20 else 1.3
        for passes, seconds in ((2, 9e-3), (4, 10e-3 * dearer)):
            for _ in range(12):
                costs.learn(4 * (1 + passes), passes, 4, {"target": 6e-3}, seconds)
    assert costs.seconds(20, 4, 4) / costs.seconds(12, 2, 4) == pytest.approx(13 / 9, rel=0.03)
