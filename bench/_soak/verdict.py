"""What a soak's record has against the server: one sentence for each check that fails; none, and it has passed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .accounts import check_all, check_calm, check_rest
from .drain import TOKENS, Drained
from .logs import suspects
from .plan import Plan
from .processes import rise, slope
from .run import Record
from .server import DRAFTS

FEWEST = 30  # samples that a slope is told from
SPARE_FILES = 4  # descriptors that may be open at the end and were not behind the warm-up: sockets on their way out


def verdict(record: Record, plan: Plan, drained: Drained, log: Path) -> list[str]:
    """All of them."""
    return [
        *check_clients(record),
        *check_all(record.whole, record.ledger, DRAFTS),
        *check_calm(record.of_calm, record.calm),
        *check_rest(record.end),
        *check_memory(record, plan),
        *check_files(record),
        *check_drain(drained),
        *(f"the server's log says: {line}" for line in suspects(log)),
    ]


def check_clients(record: Record) -> Iterator[str]:
    ledger = record.ledger
    yield from ledger.problems
    if ledger.wrong > len(ledger.problems):
        yield f"{ledger.wrong - len(ledger.problems)} more requests went wrong"
    preempted = record.whole.total("vllm:num_preemptions_total")
    if record.texts.moved > preempted:
        yield f"{record.texts.moved} seeded requests said something else than alone, and {preempted:.0f} were preempted"
    if not record.healthy:
        yield "GET /health did not say 200 at the end"
    if not ledger.audit.steps or not ledger.left or not ledger.loose:
        yield "too little was asked for: nobody left, or the audited tenant had nothing verified"


@dataclass(frozen=True)
class Growth:
    """Of one process behind the warm-up: MiB a minute, and the whole rise as a share."""

    slope: float
    rise: float


def growth(record: Record, plan: Plan) -> dict[str, Growth]:
    """By process; those that lived through all of it."""
    late = [sample for sample in record.samples if sample.seconds >= plan.warm * plan.seconds]
    if len(late) < FEWEST:
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in late:
        for process in sample.processes:
            series.setdefault(f"{process.name} {process.pid}", []).append((sample.seconds, process.rss))
    return {name: _growth(np.asarray(s), plan) for name, s in series.items() if len(s) == len(late)}


def _growth(series: np.ndarray, plan: Plan) -> Growth:
    """series [n, 2]: seconds, MiB."""
    return Growth(slope(series[:, 0], series[:, 1], plan.near), rise(series[:, 1]))


def check_memory(record: Record, plan: Plan) -> Iterator[str]:
    found = growth(record, plan)
    if not found:
        yield f"there are not {FEWEST} samples of the processes behind the warm-up"
    for name, each in found.items():
        if each.slope > plan.slope:
            yield f"{name} grows by {each.slope:.2f} MiB a minute behind the warm-up, more than {plan.slope:g}"
        if each.rise > plan.rise:
            yield f"{name} has grown by {each.rise:.1%} behind the warm-up, more than {plan.rise:.0%}"


def check_files(record: Record) -> Iterator[str]:
    before, after = record.rests[0], record.rests[-1]
    if {p.pid for p in before} != {p.pid for p in after}:
        yield f"the processes are {[p.name for p in after]}, and were {[p.name for p in before]}"
    files = {process.pid: process.files for process in before}
    for process in after:
        if process.files > files.get(process.pid, process.files) + SPARE_FILES:
            yield f"{process.name} {process.pid} has {process.files} open files, and had {files[process.pid]}"


def check_drain(drained: Drained) -> Iterator[str]:
    for reply in drained.replies:
        if reply.problem or not reply.whole:
            yield f"asked to stop, the server broke a stream off: {reply.problem or 'no [DONE] came'}"
        elif reply.tokens != TOKENS or reply.choice(0).finish != "length":
            reason = reply.choice(0).finish
            yield f"asked to stop, the server ended a stream of {TOKENS} tokens at {reply.tokens} ({reason})"
    if drained.later.tokens:
        yield f"asked to stop, the server gave {drained.later.tokens} tokens to a request that came later"
    if drained.status != 0:
        yield (
            "asked to stop, the server did not go"
            if drained.status is None
            else f"it went with status {drained.status}"
        )
    if drained.left_over:
        yield f"{drained.left_over} of the server's processes outlived it"
