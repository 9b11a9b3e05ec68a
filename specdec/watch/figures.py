"""Figures of what counters grew by: None wherever nothing was counted."""

from dataclasses import dataclass

from specdec.metrics.scrape import Scrape, Sums

PHASES = ("target", "verify", "draft")


@dataclass(frozen=True)
class Position:
    """Acceptance of the drafts at one position that were reached; expected and exact: what it should be."""

    observed: float | None
    expected: float | None
    exact: float | None


@dataclass(frozen=True)
class Figures:
    """length: tokens a request gains in a verify step. entropy: mean, nats, of the target. undrafted: share of steps
    without drafts. lost: share of drafts whose rows were gone. phases: mean seconds of a step, by phase.
    """

    positions: dict[str, Position]
    length: float | None
    tokens_per_second: float | None
    entropy: float | None
    undrafted: float | None
    lost: float | None
    phases: dict[str, float | None]


@dataclass(frozen=True)
class State:
    """What holds now. drafts: per request, that the last step asked the head for. rows: bytes of kept draft rows."""

    running: float
    waiting: float
    drafts: float
    rows: float
    programs: float


def figures(sums: Sums) -> Figures:
    steps, undrafted = sums.total("specdec_verify_steps_total"), sums.total("specdec_undrafted_steps_total")
    tokens = sums.total("vllm:generation_tokens_total")
    return Figures(
        positions=_positions(sums),
        length=sums.share("specdec_tokens_per_step_sum", "specdec_tokens_per_step_count"),
        tokens_per_second=tokens / sums.seconds if sums.seconds else None,
        entropy=sums.share("specdec_target_entropy_nats_sum", "specdec_target_entropy_nats_count"),
        undrafted=_ratio(undrafted, steps + undrafted),
        lost=sums.share("specdec_lost_draft_rows_total", "specdec_draft_tokens_total"),
        phases=_phases(sums),
    )


def state(scrape: Scrape) -> State:
    return State(
        running=scrape.total("vllm:num_requests_running"),
        waiting=scrape.total("vllm:num_requests_waiting"),
        drafts=scrape.total("specdec_drafts_per_step"),
        rows=scrape.total("specdec_draft_rows_bytes"),
        programs=scrape.total("specdec_steering_programs"),
    )


def _positions(sums: Sums) -> dict[str, Position]:
    reached = sums.by("specdec_reached_draft_tokens_total", "position")
    accepted = sums.by("specdec_accepted_tokens_total", "position")
    expected = sums.by("specdec_expected_acceptance_sum_total", "position")
    exact = sums.by("specdec_exact_acceptance_sum_total", "position")
    rows = sums.by("specdec_exact_acceptance_rows_total", "position")
    return {
        position: Position(
            _ratio(accepted.get(position, 0.0), count),
            _ratio(expected.get(position, 0.0), count),
            _ratio(exact.get(position, 0.0), rows.get(position, 0.0)),
        )
        for position, count in reached.items()
    }


def _phases(sums: Sums) -> dict[str, float | None]:
    seconds = sums.by("specdec_phase_seconds_sum", "phase")
    steps = sums.by("specdec_phase_seconds_count", "phase")
    return {phase: _ratio(seconds.get(phase, 0.0), steps.get(phase, 0.0)) for phase in PHASES}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
