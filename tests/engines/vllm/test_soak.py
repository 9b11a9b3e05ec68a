"""bench/soak.py's server, clients and checks for a minute; memory has a looser bound, which a gross leak breaks."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

from bench._soak.accounts import OURS, THEIRS
from bench._soak.drain import TOKENS, Drained, drain
from bench._soak.material import Material
from bench._soak.plan import Plan
from bench._soak.processes import Process, rise, slope
from bench._soak.run import Record, Sample, Soak
from bench._soak.served import AUDITED
from bench._soak.server import LENGTH, Soaked, settings_of, soaked
from bench._soak.verdict import Growth, growth, verdict
from specdec.metrics.scrape import Sums
from tests.engines.vllm.engine import HEAD, MODEL

SAE, CORPUS = MODEL.parent / "sae", MODEL.parent / "corpus.py"
# The processes still grow where they meet something for the first time.
PLAN = Plan(60, slope=100, rise=0.15)


@dataclass(frozen=True)
class Done:
    record: Record
    drained: Drained
    log: Path

    def failed(self, **changed: object) -> list[str]:
        """Sentences, with fields of the record changed."""
        return verdict(replace(self.record, **changed), PLAN, self.drained, self.log)  # type: ignore[arg-type]


async def soak(server: Soaked, material: Material) -> tuple[Record, Drained]:
    record = await Soak(server, PLAN, material).run()
    return record, await drain(server, material)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """With drafting that adapts, which has more to go wrong."""
    log, material = tmp_path_factory.mktemp("soak") / "log", Material.of(MODEL, CORPUS, SAE, LENGTH)
    settings = settings_of(SAE, {"drafts": {"count": "adaptive"}})
    with soaked(MODEL, HEAD, settings, log, eager=True) as server:
        record, drained = asyncio.run(soak(server, material))
    yield Done(record, drained, log)


@pytest.mark.slow
def test_a_minute_of_everything(done: Done) -> None:
    assert done.failed() == []
    ledger = done.record.ledger
    assert ledger.requests > 200 and len(ledger.kinds) > 40 and ledger.left > 10
    assert done.record.whole.total("specdec_accepted_tokens_total") > 100


def one_more(sums: Sums, name: str, **labels: str) -> Sums:
    key = next(key for key in sums.values if key[0] == name and set(labels.items()) <= key[1])
    return Sums({**sums.values, key: sums.values[key] + 1})


@pytest.mark.slow
def test_counters_that_are_off_by_one_are_found(done: Done) -> None:
    """What is counted exactly, is; in the calm phase, or by what the counters owe one another."""
    for name in ("vllm:generation_tokens_total", *OURS.values(), *THEIRS.values()):
        assert done.failed(of_calm=one_more(done.record.of_calm, name)), name
    for name in ("reached_draft_tokens", "accepted_tokens", "recovered_tokens", "bonus_tokens", "verify_steps"):
        assert done.failed(whole=one_more(done.record.whole, f"specdec_{name}_total")), name
    assert done.failed(whole=one_more(done.record.whole, "specdec_draft_tokens_total", tenant=AUDITED))
    assert done.failed(end=one_more(done.record.end, "vllm:num_requests_running"))


@pytest.mark.slow
def test_leaks_are_found(done: Done) -> None:
    """Two megabytes a second, or ten descriptors, in one process."""
    grown = [
        replace(s, processes=[replace(p, rss=p.rss + 2 * s.seconds) for p in s.processes]) for s in done.record.samples
    ]
    assert any("MiB a minute" in sentence for sentence in done.failed(samples=grown))
    first, last = done.record.rests
    assert any("open files" in s for s in done.failed(rests=[first, [replace(p, files=p.files + 10) for p in last]]))
    assert any("processes are" in sentence for sentence in done.failed(rests=[first, last[1:]]))


@pytest.mark.slow
def test_what_the_log_says_is_found(done: Done, tmp_path: Path) -> None:
    """Before the server was asked to stop; vLLM writes of an error when its engine ends as it should."""
    log, text = tmp_path / "log", done.log.read_text()
    log.write_text(f"ERROR something\n{text}")
    assert verdict(done.record, PLAN, done.drained, log) == ["the server's log says: ERROR something"]
    log.write_text(text + "ERROR something")
    assert verdict(done.record, PLAN, done.drained, log) == []


@pytest.mark.slow
def test_a_stream_that_is_cut_off_by_the_stop_is_found(done: Done) -> None:
    cut = replace(
        done.drained, replies=[replace(done.drained.replies[0], tokens=TOKENS - 1), *done.drained.replies[1:]]
    )
    (sentence,) = verdict(done.record, PLAN, cut, done.log)
    assert f"ended a stream of {TOKENS} tokens at {TOKENS - 1}" in sentence


def test_the_slope_is_not_moved_by_a_few_odd_samples() -> None:
    seconds = np.arange(0.0, 120.0)
    values = 500 + seconds / 60 + np.where(seconds % 17 == 0, 300.0, 0.0)
    assert slope(seconds, values, 60) == pytest.approx(1.0, abs=0.05)


def test_a_step_is_no_slope_but_a_rise() -> None:
    seconds = np.arange(0.0, 600.0, 3.0)
    values = 1000 + np.where(seconds > 300, 50.0, 0.0)
    assert slope(seconds, values, 60) == 0 and rise(values) == pytest.approx(0.05)


def test_processes_that_come_later_are_not_told_a_slope_of() -> None:
    steady, late = Process(1, "a", 100.0, 3), Process(2, "b", 50.0, 3)
    samples = [Sample(float(i), [steady] if i < 50 else [steady, late], 0, 1) for i in range(60)]
    assert growth(Record(samples=samples), PLAN) == {"a 1": Growth(0.0, 0.0)}
