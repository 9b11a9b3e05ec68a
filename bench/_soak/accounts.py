"""Do the server's counters say what the clients counted? Each check that fails gives one sentence.

Where nobody leaves and nothing is cut off, exactly. Elsewhere between bounds: of a request whose client has gone, the
engine may have made any number of tokens up to what was asked for; the worker has counted a last step whose tokens an
end, or an abort that came while it ran, has cut off.
"""

from collections.abc import Iterator

import numpy as np

from specdec.metrics.scrape import Sums

from .ledger import Audit, Ledger
from .served import AUDITED

OURS = {"drafted": "specdec_draft_tokens_total", "accepted": "specdec_accepted_tokens_total"}
THEIRS = {
    "drafted": "vllm:spec_decode_num_draft_tokens_total",
    "accepted": "vllm:spec_decode_num_accepted_tokens_total",
}


def emitted(sums: Sums, **labels: str) -> float:
    """Tokens that the worker has made: one in each step, and the accepted drafts."""
    names = ("specdec_undrafted_steps_total", "specdec_verify_steps_total", "specdec_accepted_tokens_total")
    return sum(sums.total(name, **labels) for name in names)


def positions(sums: Sums, name: str, **labels: str) -> np.ndarray:
    """float64 [positions]."""
    return np.asarray(sums.by_position(name, **labels))


def check_all(delta: Sums, ledger: Ledger, drafts: int) -> Iterator[str]:
    """delta: of the whole soak, from rest to rest. drafts: the most that a step has, of one request."""
    generated = delta.total("vllm:generation_tokens_total")
    low, high = ledger.tokens + ledger.seen, ledger.tokens + ledger.most
    yield from _within("vllm:generation_tokens", generated, low, high)
    # A last step may go beyond the end by its drafts; behind a stop by text, or a client that left, more steps follow.
    slack = drafts * ledger.sequences + ledger.most + ledger.stopped_early + (drafts + 1) * ledger.loose
    yield from _within("tokens that the worker made", emitted(delta), generated, generated + slack)
    for what, ours in OURS.items():
        theirs = delta.total(THEIRS[what])
        yield from _within(ours, delta.total(ours), theirs, theirs + drafts * ledger.loose)
    for reason in ("length", "stop"):
        counted = delta.total("vllm:request_success_total", finished_reason=reason)
        yield from _within(
            f"requests that ended by {reason}", counted, ledger.ends[reason], ledger.ends[reason] + ledger.left
        )
    yield from check_each_other(delta)
    yield from check_audit(delta, ledger.audit, drafts)


def check_calm(delta: Sums, ledger: Ledger) -> Iterator[str]:
    """delta, ledger: of a time in which nobody left and nothing stopped by text. Nothing is left open."""
    if ledger.loose:
        yield f"{ledger.loose} requests of the calm phase were not served to their end"
        return
    yield from _equal("vllm:generation_tokens", delta.total("vllm:generation_tokens_total"), ledger.tokens)
    for what, ours in OURS.items():
        yield from _equal(ours, delta.total(ours), delta.total(THEIRS[what]))
    yield from _equal(
        "specdec_verify_steps_total",
        delta.total("specdec_verify_steps_total"),
        delta.total("vllm:spec_decode_num_drafts_total"),
    )
    accepted = positions(delta, "specdec_accepted_tokens_total")
    theirs = positions(delta, "vllm:spec_decode_num_accepted_tokens_per_pos_total")[: len(accepted)]
    if not np.array_equal(accepted, theirs):
        yield f"accepted by position is {accepted.tolist()}, and {theirs.tolist()} by vLLM's count"


def check_each_other(delta: Sums) -> Iterator[str]:
    """What our own counters owe one another, whatever was served."""
    reached, accepted, recovered, drafted = (
        positions(delta, f"specdec_{name}_total")
        for name in ("reached_draft_tokens", "accepted_tokens", "recovered_tokens", "draft_tokens")
    )
    if not np.array_equal(reached, accepted + recovered):
        yield f"reached {reached.tolist()} is not accepted {accepted.tolist()} and recovered {recovered.tolist()}"
    if (np.diff(drafted) > 0).any() or (reached[1:] > accepted[:-1]).any():
        yield f"later positions have more than earlier ones: drafted {drafted.tolist()}, reached {reached.tolist()}"
    steps = delta.total("specdec_verify_steps_total")
    yield from _equal("steps that ended", recovered.sum() + delta.total("specdec_bonus_tokens_total"), steps)
    yield from _equal("specdec_tokens_per_step_sum", delta.total("specdec_tokens_per_step_sum"), steps + accepted.sum())
    # Observed counts are Bernoulli sums around the expected ones; each variance is at most 1/4.
    expected = positions(delta, "specdec_expected_acceptance_sum_total")
    apart = np.abs(expected - accepted) > 6 * np.sqrt(reached / 4) + 1e-6
    if apart.any():
        yield f"accepted {accepted.tolist()} of {reached.tolist()}, expected {np.round(expected, 1).tolist()}"


def check_audit(delta: Sums, audit: Audit, drafts: int) -> Iterator[str]:
    """The tenant's counters are the sums of what its answers said."""
    for name, counter in (
        ("drafted", "draft_tokens"),
        ("reached", "reached_draft_tokens"),
        ("accepted", "accepted_tokens"),
    ):
        counted = positions(delta, f"specdec_{counter}_total", tenant=AUDITED)
        told = audit.sums.get(name, np.zeros(0))
        size = max(len(counted), len(told))
        if not np.array_equal(np.pad(counted, (0, size - len(counted))), np.pad(told, (0, size - len(told)))):
            yield f"the audited tenant's {name} is {counted.tolist()}, and {told.tolist()} by its answers"
    yield from _equal(
        "the audited tenant's steps", delta.total("specdec_verify_steps_total", tenant=AUDITED), audit.steps
    )
    most = audit.tokens + drafts * audit.sequences
    yield from _within("the audited tenant's tokens", emitted(delta, tenant=AUDITED), audit.tokens, most)


def check_rest(now: Sums) -> Iterator[str]:
    """now: of a server that nobody asks for anything."""
    for name in (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "specdec_steering_programs",
    ):
        yield from _equal(f"{name} at rest", now.total(name), 0)


def _within(what: str, value: float, low: float, high: float) -> Iterator[str]:
    if not low <= value <= high:
        yield f"{what} is {value:.0f}, which is not between {low:.0f} and {high:.0f}"


def _equal(what: str, value: float, wanted: float) -> Iterator[str]:
    if value != wanted:
        yield f"{what} is {value:g}, not {wanted:g}"
