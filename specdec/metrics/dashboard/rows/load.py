"""What the server does meanwhile."""

from specdec.metrics.dashboard.base import VLLM, Panel, Query, Row, gauge, quantile, rate
from specdec.metrics.dashboard.figures import DRAFTS, UNDRAFTED

LOAD = Row(
    "Load",
    (
        Panel(
            "Tokens/s",
            "timeseries",
            (Query(rate("vllm:generation_tokens_total", where=VLLM), "output tokens/s"),),
            "Output tokens of all requests.",
        ),
        Panel(
            "Requests",
            "timeseries",
            (
                Query(gauge("vllm:num_requests_running", VLLM), "running"),
                Query(gauge("vllm:num_requests_waiting", VLLM), "waiting"),
            ),
            "Speculation gains most with few running requests: with many, verifying drafts competes for the same "
            "device.",
        ),
        Panel(
            "Drafts per step, steps without drafts",
            "timeseries",
            (Query(DRAFTS, "drafts per request"), Query(UNDRAFTED, "share of steps without drafts")),
            "Adaptive drafting asks for fewer drafts, or none, where more would not pay.",
        ),
        Panel(
            "Time between tokens",
            "timeseries",
            (
                Query(quantile(0.5, "vllm:inter_token_latency_seconds", where=VLLM), "median"),
                Query(quantile(0.95, "vllm:inter_token_latency_seconds", where=VLLM), "95 %"),
            ),
            "As vLLM counts it: from one output of a request to its next, which holds all tokens of a step.",
            "s",
        ),
    ),
)
