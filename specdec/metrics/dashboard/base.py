"""What a dashboard is made of: rows of panels, each with queries and the text behind its ⓘ.

Queries are PromQL with the dashboard's variables in them. Figures of requests are told apart by model, head and
tenant; those of a worker (times, memory) by model and head; vLLM's own by model.
"""

from dataclasses import dataclass
from typing import Literal

REQUESTS = 'model_name=~"$model_name",head=~"$head",tenant=~"$tenant"'
WORKER = 'model_name=~"$model_name",head=~"$head"'
VLLM = 'model_name=~"$model_name"'
RATE = "[$__rate_interval]"  # Grafana's: at least four scrapes

Kind = Literal["timeseries", "stat", "heatmap", "bargauge"]


@dataclass(frozen=True)
class Query:
    """expr: PromQL. legend: the name of its lines, with {{label}} for what tells them apart. dashed: drawn so."""

    expr: str
    legend: str
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """unit: Grafana's name of it. width: of 24 columns. most: where the axis ends; None: where the data does."""

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    description: str
    unit: str = "short"
    width: int = 8
    height: int = 8
    most: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, *by: str, where: str = REQUESTS) -> str:
    """Per second, of all servers chosen, told apart by the labels `by`."""
    return f"{_sum(by)} (rate({metric}{{{where}}}{RATE}))"


def gauge(metric: str, where: str = WORKER) -> str:
    """What holds now, of all servers chosen."""
    return f"sum ({metric}{{{where}}})"


def ratio(part: str, whole: str, *by: str, where: str = REQUESTS) -> str:
    """rate(part) / rate(whole): a mean, or a share."""
    return f"{rate(part, *by, where=where)} / {rate(whole, *by, where=where)}"


def quantile(q: float, histogram: str, *by: str, where: str = REQUESTS) -> str:
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket', 'le', *by, where=where)})"


def _sum(by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)})" if by else "sum"
