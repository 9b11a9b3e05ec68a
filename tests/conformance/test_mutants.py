"""The power of the checks: each of them catches the bug that it is named for, at the smallest number of samples."""

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from specdec.conformance import base
from specdec.conformance.base import CAPABILITIES
from specdec.conformance.checks import CHECKS
from specdec.conformance.mutants import MUTANTS, SAMPLES, Mutant
from specdec.conformance.run import run_check


@pytest.mark.parametrize(("check", "make"), MUTANTS, ids=[f"{check}-{make.__name__}" for check, make in MUTANTS])
def test_planted_faults_are_caught(check: str, make: Callable[[], Mutant]):
    result = run_check(make.__name__, make(), CHECKS[check])
    assert result.state == "failed"
    assert not result.detail.startswith(("SpecdecError", "RuntimeError", "IndexError", "TypeError")), result.detail


@pytest.mark.parametrize("check", CHECKS)
def test_without_a_fault_they_pass(check: str):
    right = Mutant()
    assert right.samples == SAMPLES
    result = run_check("right", right, CHECKS[check])
    assert result.state == "passed", result.detail


def test_every_check_has_a_planted_fault():
    assert {check for check, _ in MUTANTS} == set(CHECKS)


def test_every_bug_of_the_list_has_a_check():
    assert {int(check.bug) for check in CHECKS.values()} == set(range(1, 20))
    assert all(set(check.needs) <= set(CAPABILITIES) for check in CHECKS.values())
    assert all(check.summary.endswith(".") for check in CHECKS.values())


def test_the_example_of_the_documentation():
    """It is right, but says nothing of target rows that are NaN."""
    text = (base.__doc__ or "").partition("own random numbers:\n")[2].partition("Each check names")[0]
    space: dict[str, Any] = {}
    exec(textwrap.dedent(text), space)
    states = {name: run_check("mine", space["Mine"](), CHECKS[name]).state for name in CHECKS}
    assert [name for name, state in states.items() if state == "failed"] == ["bad-target-rows"]
    assert list(states.values()).count("passed") == 6
