"""How many drafts are accepted, and whether as many as should be."""

from specdec.metrics.dashboard.base import Panel, Query, Row, rate, ratio
from specdec.metrics.dashboard.figures import BY_ENTROPY, EXACT, EXPECTED, LENGTH, OBSERVED

ACCEPTANCE = Row(
    "Acceptance",
    (
        Panel(
            "Acceptance by position: observed and expected",
            "timeseries",
            (Query(OBSERVED, "observed {{position}}"), Query(EXPECTED, "expected {{position}}", dashed=True)),
            "Of the drafts that were reached: the share accepted, beside the mean of min(1, p/q). Both estimate "
            "the same number, so they differ by noise alone. A lasting gap means that the stored draft "
            "distribution is not the one that drew the drafts, or a fault of the verify step: the output's law is "
            "then in doubt.",
            "percentunit",
            width=12,
            height=9,
            most=1,
        ),
        Panel(
            "Acceptance by position: exact",
            "timeseries",
            (Query(EXACT, "exact {{position}}"), Query(EXPECTED, "expected {{position}}", dashed=True)),
            "The exact overlap, the sum of min(p, q) over the vocabulary, of one step in 64 (token rule only). It "
            "does not look at the token drawn, so it alone shows a wrongly stored q.",
            "percentunit",
            width=12,
            height=9,
            most=1,
        ),
        Panel(
            "Acceptance length",
            "timeseries",
            (Query(LENGTH, "tokens per step"),),
            "Tokens one request gains in one verify step.",
        ),
        Panel(
            "Acceptance length by tenant",
            "timeseries",
            (
                Query(
                    ratio("specdec_tokens_per_step_sum", "specdec_tokens_per_step_count", "tenant"), "tenant {{tenant}}"
                ),
            ),
            "Requests that name no tenant have an empty one.",
        ),
        Panel(
            "Drafts: verified, reached, accepted",
            "timeseries",
            (
                Query(rate("specdec_draft_tokens_total"), "verified"),
                Query(rate("specdec_reached_draft_tokens_total"), "reached"),
                Query(rate("specdec_accepted_tokens_total"), "accepted"),
            ),
            "Per second. Drafts behind a rejected one are not reached: verified and reached part where too many "
            "are made.",
        ),
        Panel(
            "Where steps end",
            "timeseries",
            (
                Query(rate("specdec_recovered_tokens_total", "position"), "rejected at {{position}}"),
                Query(rate("specdec_bonus_tokens_total", "position"), "all {{position}} accepted"),
            ),
            "Each verify step ends with one token that is no draft: drawn from the residual where a draft was "
            "rejected, or from the target behind drafts that were all accepted (a bonus). Per second.",
            stacked=True,
        ),
        Panel(
            "Tokens gained per step",
            "heatmap",
            (Query(rate("specdec_tokens_per_step_bucket", "le"), "{{le}}"),),
            "How many steps gained how many tokens.",
        ),
        Panel(
            "Accepted of reached drafts by entropy",
            "bargauge",
            (
                Query(
                    BY_ENTROPY,
                    "{{entropy}} nats",
                ),
            ),
            "By the entropy of the target where the draft stands (one step in 64). Acceptance falls where the "
            "target is unsure; one that falls at low entropy too is a head that no longer fits its model.",
            "percentunit",
            most=1,
        ),
    ),
)
