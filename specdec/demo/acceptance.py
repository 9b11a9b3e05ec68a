"""Acceptance figures from a server's /metrics: what happened between two scrapes."""

from dataclasses import dataclass

from specdec.metrics.scrape import Sums


@dataclass(frozen=True)
class Acceptance:
    """Lists are by draft position, first draft first; None where the server does not count it.

    length               tokens per request and step: 1 + accepted / drafts
    accepted             share of all drafts whose token at that position was accepted (falls with the position)
    expected             mean of min(1, p/q) over the tokens that were reached: what theory says `observed` is
    observed             share of the reached tokens that were accepted
    """

    length: float | None = None
    accepted: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None
    observed: tuple[float, ...] | None = None


NO_SPECULATION = Acceptance(length=1.0, accepted=())


def ratios(parts: list[float], wholes: list[float]) -> tuple[float, ...] | None:
    """parts / wholes by position, up to the first position that nothing reached; None where nothing was counted."""
    pairs = [(part, whole) for part, whole in zip(parts, wholes, strict=False) if whole > 0]
    return tuple(part / whole for part, whole in pairs) or None


def acceptance_in(sums: Sums) -> Acceptance:
    """The figures of what happened between two scrapes of one server."""
    drafts = sums.total("vllm:spec_decode_num_drafts_total")
    if drafts == 0:
        return Acceptance()
    reached = sums.by_position("specdec_reached_draft_tokens_total")
    return Acceptance(
        length=1 + sums.total("vllm:spec_decode_num_accepted_tokens_total") / drafts,
        accepted=tuple(n / drafts for n in sums.by_position("vllm:spec_decode_num_accepted_tokens_per_pos_total")),
        expected=ratios(sums.by_position("specdec_expected_acceptance_sum_total"), reached),
        observed=ratios(sums.by_position("specdec_accepted_tokens_total"), reached),
    )
