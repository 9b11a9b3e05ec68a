"""What speculation gains, in six numbers."""

from specdec.metrics.dashboard.base import VLLM, Panel, Query, Row, rate, ratio
from specdec.metrics.dashboard.figures import DRAFTS, LENGTH, LOST, UNDRAFTED

GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Acceptance length",
            "stat",
            (Query(LENGTH, "tokens per step"),),
            "Tokens one request gains in one verify step. 1 is what it gains without speculation; with n drafts "
            "it is at most n + 1. The gain in speed is smaller by what drafting and verifying take: see Time.",
            width=4,
            height=4,
        ),
        Panel(
            "Tokens/s",
            "stat",
            (Query(rate("vllm:generation_tokens_total", where=VLLM), "tokens/s"),),
            "Output tokens of all requests, per second.",
            width=4,
            height=4,
        ),
        Panel(
            "Accepted of reached drafts",
            "stat",
            (Query(ratio("specdec_accepted_tokens_total", "specdec_reached_draft_tokens_total"), "accepted"),),
            "Of the drafts whose predecessors were all accepted.",
            "percentunit",
            width=4,
            height=4,
            most=1,
        ),
        Panel(
            "Drafts per step",
            "stat",
            (Query(DRAFTS, "drafts"),),
            "Drafts per request that the last engine step asked the head for.",
            width=4,
            height=4,
        ),
        Panel(
            "Steps without drafts",
            "stat",
            (Query(UNDRAFTED, "without drafts"),),
            "Share of the tokens' steps that had no draft to verify: the first token of a request, requests near "
            "their length limit, and steps in which drafting was switched off because of load.",
            "percentunit",
            width=4,
            height=4,
            most=1,
        ),
        Panel(
            "Lost draft rows",
            "stat",
            (Query(LOST, "lost"),),
            "Share of drafts verified as if they were certain, because the logits that drew them were gone. The "
            "output stays exact, but fewer are accepted. Raise drafts.kept_mib if it is not 0.",
            "percentunit",
            width=4,
            height=4,
        ),
    ),
)
