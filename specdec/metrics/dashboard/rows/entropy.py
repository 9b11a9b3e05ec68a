"""How sure the target is, and what that does to acceptance."""

from specdec.metrics.dashboard.base import Panel, Query, Row, quantile, rate, ratio
from specdec.metrics.dashboard.figures import BY_ENTROPY

ENTROPY = Row(
    "Entropy",
    (
        Panel(
            "Entropy of the target",
            "heatmap",
            (Query(rate("specdec_target_entropy_nats_bucket", "le"), "{{le}}"),),
            "Nats, of the distribution that tokens are sampled from, temperature and filters applied; 0 for greedy "
            "requests. One step in 64.",
            "short",
            width=12,
        ),
        Panel(
            "Entropy of the target: mean and quantiles",
            "timeseries",
            (
                Query(ratio("specdec_target_entropy_nats_sum", "specdec_target_entropy_nats_count"), "mean"),
                Query(quantile(0.5, "specdec_target_entropy_nats"), "median"),
                Query(quantile(0.9, "specdec_target_entropy_nats"), "90 %"),
            ),
            "In reinforcement learning a mean that falls to 0 is a policy that collapses.",
            width=12,
        ),
        Panel(
            "Acceptance by entropy",
            "timeseries",
            (
                Query(
                    BY_ENTROPY,
                    "{{entropy}} nats",
                ),
            ),
            "Accepted of reached drafts where the target's entropy is in that range.",
            "percentunit",
            width=24,
            most=1,
        ),
    ),
)
