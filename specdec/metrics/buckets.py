"""Where the histograms' buckets end, in nats and seconds. The last one has no end."""

from itertools import pairwise

import numpy as np

# Entropy of the distribution that tokens are sampled from. Language models are mostly sure: fine steps near 0.
ENTROPY = (0.1, 0.5, 1.0, 2.0, 3.0, 4.0)
# Of a phase of one engine step: half a millisecond is a small model on a GPU, seconds a large batch on a CPU.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5
)  # fmt: skip


def ranges(ends: tuple[float, ...]) -> list[str]:
    """Names of the buckets that these ends make: "0-0.1", "0.1-0.5", ..., "4-inf"."""
    bounds = ["0", *(f"{end:g}" for end in ends), "inf"]
    return [f"{low}-{high}" for low, high in pairwise(bounds)]


def bucket(values: np.ndarray, ends: tuple[float, ...]) -> np.ndarray:
    """int64 [n]: the bucket of each value; an end belongs to its own, as `le` in Prometheus."""
    return np.searchsorted(np.asarray(ends), values, side="left")
