"""The residual stream of the data, a buffer at a time."""

import numpy as np
import torch
from torch import Tensor

from specdec.steering.training.settings import Settings
from specdec.training.batches import Batches
from specdec.training.data import TokenStream
from specdec.training.target import Target

SINKS = (
    10.0  # tokens whose norm is above so many medians are attention sinks: they would rule the loss, and are left out
)


class Activations:
    """Buffer number `n` of tokens' streams is a function of seed and n alone, so that a resumed run goes on exactly.

    Fixed by the first buffer: scale, which makes the mean square norm the width d; cut, the norm above which tokens are
    left out; mean [d], scaled, of what is not.
    """

    def __init__(self, target: Target, stream: TokenStream, settings: Settings) -> None:
        self.target, self.settings = target, settings
        self.batches = Batches(stream, settings.rows, settings.seq_len, settings.seed)
        first = self._read(0)
        norms = first.norm(dim=-1)
        self.cut = SINKS * norms.median().item()
        usual = first[norms <= self.cut]
        self.scale = (usual.shape[1] / usual.square().sum(dim=-1).mean().item()) ** 0.5
        self.mean = self.scale * usual.mean(dim=0)

    def buffer(self, number: int) -> Tensor:
        """[n, d] float32, scaled, in their order in the text."""
        x = self._read(number)
        return self.scale * x[x.norm(dim=-1) <= self.cut]

    def batch(self, buffer: Tensor, number: int, step: int) -> Tensor:
        """Batch `step` of the steps on this buffer: each pass goes over all of it in an order of its own."""
        one_pass, place = divmod(step, self.settings.buffer_batches)
        order = np.random.default_rng((self.settings.seed, number, one_pass)).permutation(len(buffer))
        part = np.array_split(order, self.settings.buffer_batches)[place]
        return buffer[torch.from_numpy(part).to(buffer.device)]

    def _read(self, number: int) -> Tensor:
        count = self.settings.buffer_batches
        parts = (self.batches[step] for step in range(number * count, (number + 1) * count))
        return torch.cat([self.target.hidden(w, self.settings.layer).float().flatten(0, 1) for w in parts])
