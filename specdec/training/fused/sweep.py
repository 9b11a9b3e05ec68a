"""The sweep over the tokens, block by block; what happens within a block's rows is a backend's row step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from specdec.drafting import thresholds_of
from specdec.sampling import SamplingBatch

# Bytes of one buffer of logits [block, V]. A block reads the whole weight, which at V = 151,936 takes some 256 rows to
# pay off on a CPU; a GPU needs more to be busy.
BUFFER_BYTES = {"cpu": 160 * 2**20, "cuda": 256 * 2**20}
# The logit of what a filter drops. Finite, so that 0 log 0 is 0, and within float16: no temperature gives it weight.
DROPPED = -6e4


@dataclass(frozen=True)
class Sides:
    """What is compared, N draft rows with M target rows; all of one dtype but for the last three."""

    draft_hidden: Tensor  # [N, d_q]
    draft_weight: Tensor  # [V, d_q]
    target_hidden: Tensor  # [M, d_p]
    target_weight: Tensor  # [V, d_p]
    target_rows: Tensor | None  # int64 [N]: the target row of each draft row; None: M = N, the same one
    temperature: Tensor | None  # [N, 1] in the wide dtype; None: 1
    filters: SamplingBatch | None = None  # [N], applied to both sides; None: none

    @property
    def block(self) -> int:
        """Rows swept at a time."""
        weight = self.draft_weight
        rows = BUFFER_BYTES.get(weight.device.type, BUFFER_BYTES["cpu"]) // (weight.shape[0] * weight.element_size())
        # Multiples of 64 suit the matrix product's tiles.
        return max(1, min(len(self.draft_hidden), max(16, rows if rows < 64 else rows // 64 * 64)))


class Slopes(NamedTuple):
    """Buffers [R, V] for dalpha/dz and dKL/dz of a block; None where not wanted. One of them may be the logits' own."""

    alpha: Tensor | None
    kl: Tensor | None


class RowStep(Protocol):
    """Takes alpha and, with_kl, KL of R rows, and fills the slopes, divided by the temperature.

    z [R, V] draft logits, may be overwritten; t [U, V] target logits, target_rows int64 [R] into them (None: U = R);
    both before the temperature [R, 1] (None: 1). Returns wide [R], [R].
    """

    def __call__(
        self,
        z: Tensor,
        t: Tensor,
        target_rows: Tensor | None,
        temperature: Tensor | None,
        slopes: Slopes,
        with_kl: bool,
    ) -> tuple[Tensor, Tensor]: ...


class Block(NamedTuple):
    """rows: where it stands in the sweep; the slopes' buffers are used again by the next block."""

    rows: slice
    alpha: Tensor
    kl: Tensor
    slopes: Slopes


def sweep(sides: Sides, step: RowStep, with_kl: bool, slope_of: tuple[bool, bool]) -> Iterator[Block]:
    """slope_of: whether the slopes of alpha and of KL are wanted."""
    size, vocab = sides.block, sides.draft_weight.shape[0]
    draft_logits, target_logits = (sides.draft_weight.new_empty(size, vocab) for _ in range(2))
    alpha_slopes = draft_logits if slope_of[0] else None
    kl_slopes = None
    if slope_of[1]:
        kl_slopes = torch.empty_like(draft_logits) if slope_of[0] else draft_logits
    for start in range(0, len(sides.draft_hidden), size):
        rows = slice(start, min(start + size, len(sides.draft_hidden)))
        hidden = sides.draft_hidden[rows]
        z = torch.mm(hidden, sides.draft_weight.t(), out=draft_logits[: len(hidden)])
        target_hidden, which = _target_of(sides, rows)
        t = torch.mm(target_hidden, sides.target_weight.t(), out=target_logits[: len(target_hidden)])
        temperature = None if sides.temperature is None else sides.temperature[rows]
        if sides.filters is not None:
            t, which = (t if which is None else t[which]), None  # a target row is filtered as each draft row is
            sampling = sides.filters.rows(torch.arange(len(sides.draft_hidden), device=z.device)[rows])
            for logits in (z, t):
                logits.masked_fill_(logits < thresholds_of(logits, sampling), DROPPED)
        slopes = Slopes(*(None if buffer is None else buffer[: len(hidden)] for buffer in (alpha_slopes, kl_slopes)))
        alpha, kl = step(z, t, which, temperature, slopes, with_kl)
        yield Block(rows, alpha, kl, slopes)


def _target_of(sides: Sides, rows: slice) -> tuple[Tensor, Tensor | None]:
    """Hidden states [U, d_p] that a block needs, each once, and which of them each row has."""
    if sides.target_rows is None:
        return sides.target_hidden[rows], None
    used, which = sides.target_rows[rows].unique(return_inverse=True)
    return sides.target_hidden[used], which
