"""The power of the checks: each of them catches the bug that it is named for, at the smallest number of samples."""

from collections.abc import Callable

import pytest

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
