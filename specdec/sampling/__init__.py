"""Temperature, top-k, top-p and min-p as one threshold, and the random streams; shared by drafting and verifying."""

from specdec.sampling.batch import GREEDY_BELOW, SamplingBatch
from specdec.sampling.draw import inverse_cdf
from specdec.sampling.filters import filtered_logits, thresholds, weights
from specdec.sampling.philox import ACCEPT, BONUS, DRAFT, RECOVER, philox_uniform

__all__ = [
    "ACCEPT",
    "BONUS",
    "DRAFT",
    "GREEDY_BELOW",
    "RECOVER",
    "SamplingBatch",
    "filtered_logits",
    "inverse_cdf",
    "philox_uniform",
    "thresholds",
    "weights",
]
