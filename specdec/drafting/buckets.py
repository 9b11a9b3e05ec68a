"""Which requests share a draft scale: those of about the same temperature, without filters or with any."""

from math import log
from typing import NamedTuple

from specdec.sampling import GREEDY_BELOW

TEMPERATURES = (0.3, 0.45, 0.6, 0.8, 1.0, 1.3)  # acceptance is flat around its best scale: no finer steps are needed


class Bucket(NamedTuple):
    """temperature: the one that stands for those nearest to it. filtered: whether top-k, top-p or min-p is on."""

    temperature: float
    filtered: bool


BUCKETS = tuple(Bucket(t, filtered) for filtered in (False, True) for t in TEMPERATURES)


def bucket_of(temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> int | None:
    """Index in BUCKETS of sampling parameters as in SamplingBatch; None: greedy, where no scale changes the argmax."""
    if temperature < GREEDY_BELOW:
        return None
    nearest = min(range(len(TEMPERATURES)), key=lambda i: abs(log(temperature / TEMPERATURES[i])))
    return nearest + (len(TEMPERATURES) if top_k > 0 or top_p < 1 or min_p > 0 else 0)
