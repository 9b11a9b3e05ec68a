"""Random numbers for the loss, each a function of the seed and of the place in the data that it is for.

So they are the same however a batch is split, over accumulated parts or over processes, and after a resumption.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Purpose = Literal["label", "serving"]
_NUMBERS: dict[Purpose, int] = {"label": 0, "serving": 1}  # never changed: a resumed run draws what it would have


class Draws:
    """For the chains of some windows.

    places [B] int64: which window of the run each one is, counted over epochs from 0. anchors [B, A] bool: where a
    chain starts, as chain_anchors gives it.
    """

    def __init__(self, seed: int, places: Tensor, anchors: Tensor) -> None:
        self.seed, self.places, self.anchors = seed, places, anchors

    def uniform(self, purpose: Purpose, count: int) -> Tensor:
        """[n, count] float32 in [0, 1): `count` numbers for each of the n chains, on the CPU."""
        shape = (self.anchors.shape[1], count)
        streams = (np.random.default_rng((self.seed, _NUMBERS[purpose], place)) for place in self.places.tolist())
        drawn = np.stack([stream.random(shape, dtype=np.float32) for stream in streams])
        return torch.from_numpy(drawn)[self.anchors]
