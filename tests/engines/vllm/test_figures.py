"""Figures of a verify step: reported when the step's output is on the host, not before, and once."""

import gc
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from vllm.v1.outputs import ModelRunnerOutput

from specdec.engines.vllm.figures import Batch, Figures, Reporter
from specdec.metrics.counters import TenantCounters
from specdec.verify import VerifyOutput


class OnItsWay:
    """An output as under asynchronous scheduling."""

    def get_output(self) -> str:
        return "the output"


def figures() -> Figures:
    out = VerifyOutput(
        token_ids=torch.zeros(3, 3, dtype=torch.int32),
        num_accepted=torch.tensor([2, 0, 0], dtype=torch.int32),
        expected_acceptance=None,
        acceptance_probability=torch.tensor([0.5, 1.0, 0.25]),
        bad_row=torch.tensor([-1, 4, -1], dtype=torch.int32),
    )
    return Figures.of(Batch(["a", "b", "c"], [2, 1, 0]), out, torch.zeros(3, dtype=torch.bool), torch.tensor(1))


def counted(counters: TenantCounters) -> dict[str, list[float]]:
    return {name: view.tolist() for name, view in counters.own.views.items()}


def check(counters: TenantCounters, caplog: pytest.LogCaptureFixture) -> None:
    found = counted(counters)
    assert found["steps"] == [2] and found["lost_rows"] == [1]
    assert found["accepted"][:2] == [1, 1] and found["draft_tokens"][:2] == [2, 1]
    assert np.allclose(found["expected_sum"][:2], [0.75, 1.0])
    assert len(caplog.records) == 1 and "affected: b" in caplog.records[0].getMessage()


def test_with_an_output_on_its_way_when_it_is_read(caplog: pytest.LogCaptureFixture) -> None:
    counters, output = TenantCounters(None, {}, 0), OnItsWay()
    Reporter(figures, counters).report_with(output)
    assert counted(counters)["steps"] == [0] and not caplog.records
    assert output.get_output() == "the output"
    check(counters, caplog)
    assert output.get_output() == "the output"
    check(counters, caplog)


def test_with_an_output_on_the_host_at_once(caplog: pytest.LogCaptureFixture) -> None:
    counters = TenantCounters(None, {}, 0)
    Reporter(figures, counters).report_with(ModelRunnerOutput(req_ids=["a"], req_id_to_index={"a": 0}))
    check(counters, caplog)


def test_a_step_without_figures_or_without_output_reports_nothing() -> None:
    counters, output = TenantCounters(None, {}, 0), OnItsWay()
    Reporter(lambda: None, counters).report_with(output)
    assert output.get_output() == "the output"
    Reporter(figures, counters).report_with(None)
    assert counted(counters)["steps"] == [0]


def test_without_metrics_broken_rows_are_still_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Reporter(figures, None).report_with(ModelRunnerOutput(req_ids=["a"], req_id_to_index={"a": 0}))
    assert len(caplog.records) == 1


def test_an_output_that_was_read_is_let_go() -> None:
    """Without a garbage collection: it holds the memory of a step."""
    output = OnItsWay()
    Reporter(figures, None).report_with(output)
    gone = weakref.ref(output)
    gc.disable()
    try:
        assert output.get_output() == "the output"
        del output
        assert gone() is None
    finally:
        gc.enable()
