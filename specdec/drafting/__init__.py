"""The draft temperature: how sharp a head's distribution is made before drafts are drawn from it.

    q = filters(softmax(s z / T))      z: the head's logits, T and filters: the request's own, s: the draft scale

T / s is the draft temperature. Every s is lossless, since s z are the very rows that are kept for verification; the s
with the largest sum(min(p, q)) is the one that loses the fewest drafts. Which one that is depends on the head and on
how the target is sampled, so scales are held by bucket of sampling parameters.

    buckets.py       which requests share a scale
    calibration.py   a head's scales, measured on held-out text and stored beside its weights
    running.py       the scales of a running server, which follow what its requests show
    overlap.py       sum(min(p, q)) as verification computes p and q
"""

from specdec.drafting.buckets import BUCKETS, Bucket, bucket_of
from specdec.drafting.calibration import CALIBRATION, NEUTRAL, Calibration, load_calibration, save_calibration
from specdec.drafting.overlap import overlap, thresholds_of
from specdec.drafting.running import GREEDY_PLACE, DraftScales

__all__ = [
    "BUCKETS",
    "CALIBRATION",
    "GREEDY_PLACE",
    "NEUTRAL",
    "Bucket",
    "Calibration",
    "DraftScales",
    "bucket_of",
    "load_calibration",
    "overlap",
    "save_calibration",
    "thresholds_of",
]
