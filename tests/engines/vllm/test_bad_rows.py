"""Broken rows in the log: every request concerned is named, and a request that stays broken does not fill it."""

import pytest

pytest.importorskip("vllm")

from specdec.engines.vllm import bad_rows
from specdec.engines.vllm.bad_rows import BadRowLog


def test_a_request_is_named_at_once_and_then_as_its_steps_double(caplog: pytest.LogCaptureFixture) -> None:
    log = BadRowLog()
    for _ in range(100):
        log.report([-1, 4, -1], ["good", "bad", "fine"])
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 7, "after 1, 2, 4 ... 64 steps"
    assert "Row 4 of the target logits (request 1)" in lines[0] and lines[0].endswith("bad (step 1 of this kind).")
    assert lines[-1].endswith("bad (step 64 of this kind).")
    assert not any("good" in line or "fine" in line for line in lines)


def test_requests_of_one_step_share_a_line_and_a_new_one_is_not_lost_among_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = BadRowLog()
    for _ in range(5):
        log.report([0, 4], ["a", "b"])
    log.report([0, 4, 8], ["a", "b", "late"])
    lines = [record.getMessage() for record in caplog.records]
    assert "a (step 1 of this kind), b (step 1 of this kind)." in lines[0]
    assert len(lines) == 4 and "Row 8 of the target logits (request 2)" in lines[3] and "late" in lines[3]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The request that was seen longest ago is forgotten, and would be named anew."""
    monkeypatch.setattr(bad_rows, "REMEMBERED", 2)
    log = BadRowLog()
    for request in ("a", "b", "a", "c", "b", "a"):
        log.report([0], [request])
    named = [record.getMessage().rsplit(": ", 1)[1] for record in caplog.records]
    assert named == [f"{request} (step {step} of this kind)." for request, step in
                     [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("b", 1), ("a", 1)]]  # fmt: skip
