"""Acceptance figures from a server's /metrics: what happened between two scrapes."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Counters = dict[tuple[str, int | None], float]
VLLM_PREFIX, OUR_PREFIX = "vllm:spec_decode_", "specdec_"


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


def parse_counters(text: str) -> Counters:
    """(sample name, draft position or None) -> value, summed over engines, of the counters about speculation."""
    counters: Counters = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith((VLLM_PREFIX, OUR_PREFIX)):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    position = sample.labels.get("position")
                    key = (sample.name, None if position is None else int(position))
                    counters[key] = counters.get(key, 0.0) + sample.value
    return counters


def by_position(counters: Counters, name: str) -> list[float]:
    """Values of one counter in order of its positions; empty where the server has none."""
    return [value for (_, _), value in sorted((k, v) for k, v in counters.items() if k[0] == name and k[1] is not None)]


def ratios(parts: list[float], wholes: list[float]) -> tuple[float, ...] | None:
    """parts / wholes by position, up to the first position that nothing reached; None where nothing was counted."""
    pairs = [(part, whole) for part, whole in zip(parts, wholes, strict=False) if whole > 0]
    return tuple(part / whole for part, whole in pairs) or None


def acceptance_between(before: Counters, after: Counters) -> Acceptance:
    """The figures of what happened between two scrapes of one server."""
    delta = {key: value - before.get(key, 0.0) for key, value in after.items()}
    drafts = delta.get((f"{VLLM_PREFIX}num_drafts_total", None), 0.0)
    if drafts == 0:
        return Acceptance()
    accepted = delta.get((f"{VLLM_PREFIX}num_accepted_tokens_total", None), 0.0)
    reached = by_position(delta, f"{OUR_PREFIX}reached_draft_tokens_total")
    return Acceptance(
        length=1 + accepted / drafts,
        accepted=tuple(n / drafts for n in by_position(delta, f"{VLLM_PREFIX}num_accepted_tokens_per_pos_total")),
        expected=ratios(by_position(delta, f"{OUR_PREFIX}expected_acceptance_sum_total"), reached),
        observed=ratios(by_position(delta, f"{OUR_PREFIX}accepted_tokens_total"), reached),
    )
