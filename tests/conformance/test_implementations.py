"""Every check on every implementation that is there. What is known to fail (expected.py) must fail.

Ours run in this process, the others each in one of its own, all its checks at once.
"""

import functools

import pytest

from specdec.conformance.checks import CHECKS
from specdec.conformance.expected import known
from specdec.conformance.processes import Absent, run_implementation
from specdec.conformance.registry import OTHERS, load, source
from specdec.conformance.run import Result, run_check
from specdec.verify import backends

OURS = [name for name in backends() if name != "triton"]  # under the interpreter it takes many minutes
TIMEOUT = 900.0  # for one check, on a machine that is busy with other things


@functools.cache
def results_of(name: str) -> dict[str, Result]:
    try:
        return {result.check: result for result in run_implementation(name, list(CHECKS), TIMEOUT)}
    except Absent as why:
        return {check: Result(name, check, "not applicable", str(why)) for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", OURS)
def test_ours(name: str, check: str):
    result = run_check(name, load(name), CHECKS[check])
    if result.state == "not applicable":
        pytest.skip(result.detail)
    assert result.state == "passed", result.detail


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, check: str, request: pytest.FixtureRequest):
    where = source(name)
    if (why := where.absent()) is not None:
        pytest.skip(why)
    reason = known(name, check, where.version())
    if reason is not None:
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    result = results_of(name)[check]
    if result.state == "not applicable":
        pytest.skip(result.detail)
    assert result.state == "passed", result.detail


def test_every_known_failure_names_a_check_and_an_implementation():
    from specdec.conformance.expected import KNOWN

    assert {entry.check for entry in KNOWN} <= set(CHECKS)
    assert {entry.implementation for entry in KNOWN} <= set(OTHERS), "ours have none"
    assert len({(entry.implementation, entry.check) for entry in KNOWN}) == len(KNOWN)
