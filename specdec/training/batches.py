"""Which windows a run sees: batches in an order fixed by the seed, and the held-out ones."""

import numpy as np
import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.training.data import TokenStream, Windows


class Batches:
    """Batch number `step` of shuffled windows, a pure function of (seed, step), so that a resumed run goes on exactly.

    The windows are the same in every epoch, in a fresh order. Each begins `overlap` tokens before its predecessor's
    end: with one more than the chain's steps, every anchor is whole in exactly one window (the last window is moved
    back to end with the stream). Windows in which no token counts are left out.
    """

    def __init__(self, stream: TokenStream, rows: int, length: int, seed: int, overlap: int = 0) -> None:
        if len(stream) < length:
            raise SpecdecError(
                f"the data has {len(stream)} tokens, fewer than one window of {length}: add text or lower --seq-len"
            )
        self.stream, self.rows, self.length, self.seed, self.overlap = stream, rows, length, seed, overlap
        self.offsets = self._grid()
        self.per_epoch = len(self.offsets)

    def _grid(self) -> Tensor:
        last, stride = len(self.stream) - self.length, self.length - self.overlap
        offsets = torch.arange(0, last + stride, stride).clamp(max=last).unique()
        return _that_count(self.stream, offsets, self.length)

    def __getitem__(self, step: int) -> Windows:
        return self.windows(self.numbers(self.places(step)))

    def places(self, step: int) -> Tensor:
        """Where batch `step` stands in the run's order of windows, which goes on from epoch to epoch: int64 [rows]."""
        return torch.arange(step * self.rows, (step + 1) * self.rows)

    def numbers(self, places: Tensor) -> Tensor:
        """Which of the windows 0..per_epoch-1 stand at these places, int64 like them."""
        return torch.tensor([self._number(place) for place in places.tolist()], dtype=torch.int64)

    def windows(self, numbers: Tensor) -> Windows:
        return self.stream.windows(self.offsets[numbers], self.length)

    def _number(self, place: int) -> int:
        epoch, index = divmod(place, self.per_epoch)
        if getattr(self, "_cached", (None,))[0] != epoch:
            self._cached = (epoch, np.random.default_rng((self.seed, epoch)).permutation(self.per_epoch))
        return int(self._cached[1][index])


def _that_count(stream: TokenStream, offsets: Tensor, length: int) -> Tensor:
    """Those of the windows in which some token counts. SpecdecError: none."""
    if stream.counted is None:
        return offsets
    # [N + 1]: how many count before each place.
    before = torch.nn.functional.pad(stream.counted.cumsum(0, dtype=torch.int32), (1, 0))
    offsets = offsets[before[offsets + length] > before[offsets]]
    if not len(offsets):
        raise SpecdecError(
            "no token of the data counts in the loss: give chats in which the assistant speaks, or --loss-on all"
        )
    return offsets


def held_out_windows(stream: TokenStream, rows: int, length: int, count: int) -> list[Windows]:
    """`count` windows evenly spread over the stream, `rows` at a time; fewer where the stream is shorter than that.

    Of a stream that says what counts, only windows in which something does.
    """
    length = min(length, len(stream))
    available = len(stream) // length
    if stream.counted is None:
        offsets = torch.linspace(0, len(stream) - length, max(1, min(count, available))).long()
    else:
        offsets = _that_count(stream, torch.arange(available) * length, length)
        offsets = offsets[torch.linspace(0, len(offsets) - 1, min(count, len(offsets))).round().long()]
    return [stream.windows(part, length) for part in offsets.split(rows)]
