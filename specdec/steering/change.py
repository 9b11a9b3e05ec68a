"""The change itself: x' = x + Σ_j (f'_j - f_j) W_j, for many rows with programs of their own.

One form serves every edit of program.py. From pre = n(x)·e + offset, an activation is read as
f = max(gain · pre + bias, floor) where pre > threshold, and 0 elsewhere: a ReLU, a JumpReLU, a gated SAE, a TopK (whose
threshold is the row's own), or with floor and threshold at -inf the projection on a vector. It becomes
f' = min(factor · f + shift, ceiling). An edit may read a second activation, its gate, and then acts only where that is
above `gate_above`. n(x) and the size of a change are sae.py's: x and 1, but for SAEs that normalise their input.

Programs live in slots of a table, whose tensors stay where they are for good, so that CUDA graphs may read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specdec.steering.activations import TopK
from specdec.steering.sae import SAE, Normalization

INF = float("inf")
EPSILON = 1e-5  # of SAELens' layer norm
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "layer_norm", "norm")  # their numbers in a table


class Reading(NamedTuple):
    """How an activation is read off x. encoder: e, float32 [d]. topk: place of the TopK SAE whose row threshold counts
    instead of `threshold`; -1: none.
    """

    encoder: Tensor
    offset: float = 0.0
    threshold: float = -INF
    gain: float = 1.0
    bias: float = 0.0
    floor: float = -INF
    normalization: Normalization = "none"
    topk: int = -1

    def scalars(self) -> list[float]:
        """Its columns in a table: READ of them."""
        numbers = (self.offset, self.threshold, self.gain, self.bias, self.floor, float(self.encoder.sum()))
        return [*numbers, float(NORMALIZATIONS.index(self.normalization)), float(self.topk)]


READ = 8
OFFSET, THRESHOLD, GAIN, BIAS, FLOOR, SUM, NORMALIZATION, TOPK = range(READ)


@dataclass(frozen=True)
class Edit:
    """One edit in numbers. decoder: W, float32 [d]. only_active: acts where f > 0. by_norm: times ‖x‖."""

    reading: Reading
    decoder: Tensor
    factor: float = 1.0
    shift: float = 0.0
    ceiling: float = INF
    only_active: bool = False
    by_norm: bool = False
    gate: Reading | None = None
    gate_above: float = -INF

    def scalars(self) -> list[float]:
        """Its columns in a table: WRITE of them."""
        return [
            self.factor, self.shift, self.ceiling, float(self.only_active), float(self.by_norm), self.gate_above
        ]  # fmt: skip


WRITE = 6
FACTOR, SHIFT, CEILING, ONLY_ACTIVE, BY_NORM, GATE_ABOVE = range(WRITE)


@dataclass(frozen=True)
class Ranking:
    """A TopK SAE, whose encoder is needed whole: a feature depends on all others."""

    sae: SAE

    def threshold(self, x: Tensor) -> Tensor:
        """x float32 [n, d] -> [n]: what exactly k pre-activations are above, but for ties; at least 0.

        Half-way between the k-th and the next: an edit's own pre-activation is summed in another order, and where it is
        the next one, it must not come out above itself.
        """
        activation = self.sae.activation
        assert isinstance(activation, TopK)
        pre = self.sae.pre_activations(x)
        if activation.k >= pre.shape[-1]:
            return pre.new_zeros(len(pre))
        return pre.topk(activation.k + 1, dim=-1).values[:, -2:].mean(-1).clamp(min=0)


class Table:
    """The programs of one layer by slot. Slot 0 stays empty, for rows without a program.

    encoders float32 [slots, 2, edits, d] (an edit's own, its gate's), readings [slots, 2, edits, READ],
    decoders [slots, edits, d], writings [slots, edits, WRITE]; counts int32 [slots]: how many edits are in use.
    """

    def __init__(self, num_programs: int, max_edits: int, width: int, device: torch.device) -> None:
        slots = num_programs + 1
        self.encoders = torch.zeros(slots, 2, max_edits, width, device=device)
        self.readings = torch.zeros(slots, 2, max_edits, READ, device=device)
        self.decoders = torch.zeros(slots, max_edits, width, device=device)
        self.writings = torch.zeros(slots, max_edits, WRITE, device=device)
        self.counts = torch.zeros(slots, dtype=torch.int32, device=device)
        self.host_counts = [0] * slots
        self._edits: list[Sequence[Edit]] = [()] * slots
        self.has_gates = self.has_normalizations = False  # of any program that is in
        for slot in range(slots):
            self.write(slot, [])

    @property
    def max_edits(self) -> int:
        return self.decoders.shape[1]

    def write(self, slot: int, edits: Sequence[Edit]) -> None:
        """Puts a program there, in the place of the one before; unused places change nothing."""
        if len(edits) > self.max_edits:
            raise ValueError(f"{len(edits)} edits in a table of {self.max_edits}")
        width = self.decoders.shape[-1]
        none = Reading(torch.zeros(width))
        empty = Edit(none, torch.zeros(width))
        padded = [*edits, *[empty] * (self.max_edits - len(edits))]
        pairs = [[edit.reading for edit in padded], [edit.gate or none for edit in padded]]
        self.encoders[slot].copy_(torch.stack([torch.stack([r.encoder.float().cpu() for r in side]) for side in pairs]))
        self.readings[slot].copy_(torch.tensor([[r.scalars() for r in side] for side in pairs]))
        self.decoders[slot].copy_(torch.stack([edit.decoder.float().cpu() for edit in padded]))
        self.writings[slot].copy_(torch.tensor([edit.scalars() for edit in padded]))
        self.counts[slot] = self.host_counts[slot] = len(edits)
        self._edits[slot] = edits
        written = [edit for program in self._edits for edit in program]
        self.has_gates = any(edit.gate is not None for edit in written)
        self.has_normalizations = any(
            reading.normalization != "none" for e in written for reading in (e.reading, e.gate) if reading is not None
        )


def change(
    x: Tensor, slots: Tensor, table: Table, thresholds: Tensor | None = None, edits: int | None = None
) -> Tensor:
    """What to add to x, float32 [n, d], of rows whose programs are in slots, int64 [n].

    thresholds: float32 [n, number of TopK SAEs], see Ranking. edits: so many of the table's places are in use.
    """
    edits = table.max_edits if edits is None else edits
    sides = 2 if table.has_gates else 1
    encoders, readings = table.encoders[slots, :sides, :edits], table.readings[slots, :sides, :edits]
    decoders, writings = table.decoders[slots, :edits], table.writings[slots, :edits]
    norm = x.norm(dim=-1)[:, None]
    u = torch.einsum("nd,nged->nge", x, encoders)
    size = None
    if table.has_normalizations:
        u, size = _normalized(u, readings, x, norm)
    pre = u + readings[..., OFFSET]
    threshold = readings[..., THRESHOLD]
    if thresholds is not None:
        place = readings[..., TOPK].long()
        own = thresholds[torch.arange(len(x), device=x.device)[:, None, None], place.clamp(min=0)]
        threshold = torch.where(place >= 0, own, threshold)
    read = torch.maximum(readings[..., GAIN] * pre + readings[..., BIAS], readings[..., FLOOR])
    read = torch.where(pre > threshold, read, 0.0)
    f = read[:, 0]
    amount = torch.minimum(writings[..., FACTOR] * f + writings[..., SHIFT], writings[..., CEILING]) - f
    acts = (f > 0) | (writings[..., ONLY_ACTIVE] == 0)
    if table.has_gates:
        acts &= read[:, 1] > writings[..., GATE_ABOVE]
    amount = amount * torch.where(writings[..., BY_NORM] > 0, norm, 1.0 if size is None else size)
    return torch.einsum("ne,ned->nd", torch.where(acts, amount, 0.0), decoders)


def _normalized(u: Tensor, readings: Tensor, x: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """x·e [n, sides, edits] of the normalised x, and the size [n, edits] of a change in units of the stream."""
    kind = readings[..., NORMALIZATION]
    deviation, root_mean_square = x.std(-1)[:, None, None], norm[..., None] / x.shape[-1] ** 0.5
    size = torch.where(kind == 1, deviation, torch.where(kind == 2, root_mean_square, 1.0))
    u = u - torch.where(kind == 1, x.mean(-1)[:, None, None] * readings[..., SUM], 0.0)
    return u / (size + EPSILON * (kind == 1)), size[:, 0]
