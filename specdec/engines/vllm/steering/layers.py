"""The hooks on the decoder layers. Each calls one operator, which a compiled graph keeps as it is, layer by layer.

They are put in when the model is loaded: a graph that was traced before would not have them. The settings are part of
vLLM's compile cache key, as all of additional_config is, so no graph of another set of layers is found there.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from vllm.forward_context import get_forward_context
from vllm.utils.torch_utils import direct_register_custom_op

from specdec.errors import SpecdecError
from specdec.steering.change import Ranking, Table, change

CHUNK = 2**24  # numbers of gathered encoders at once


class SteeredLayer(ABC):
    """What the operator does at one layer of one engine."""

    def __init__(self, table: Table, rankings: list[Ranking]) -> None:
        self.table, self._rankings = table, rankings

    @abstractmethod
    def take(self, slots: Tensor, edits: int) -> None:
        """The step to come has slots int64 [n], on the device, whose programs have up to `edits` edits here."""

    @abstractmethod
    def rest(self) -> None:
        """The steps to come have no program."""

    @abstractmethod
    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """Adds the change of hidden + residual, [n or more, d] each, to hidden, and keeps their sum where watched."""

    @abstractmethod
    def watch(self, rows: Tensor) -> None:
        """Of the step to come, the changed stream at rows, int64 [m] on the device, will be asked for."""

    @abstractmethod
    def watched(self) -> Tensor:
        """That, [m, d], once."""

    def _thresholds(self, x: Tensor) -> Tensor | None:
        return torch.stack([ranking.threshold(x) for ranking in self._rankings], -1) if self._rankings else None


class HostLayer(SteeredLayer):
    """On a CPU: nothing at all is done for rows without a program."""

    _rows: Tensor | None = None
    _slots: Tensor
    _edits = 0
    _watch: Tensor | None = None
    _seen: Tensor | None = None

    def take(self, slots: Tensor, edits: int) -> None:
        rows = (self.table.counts[slots] > 0).nonzero()[:, 0] if edits else slots[:0]
        self._rows = rows if len(rows) else None
        self._slots, self._edits = slots[rows], edits

    def rest(self) -> None:
        self._rows = None

    def watch(self, rows: Tensor) -> None:
        self._watch, self._seen = rows, None

    def watched(self) -> Tensor:
        seen, self._watch, self._seen = self._seen, None, None
        assert seen is not None, "no forward pass since the rows were named"
        return seen

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        if self._rows is not None:
            self._change(hidden, residual, self._rows)
        if self._watch is not None:
            own = hidden[self._watch].float()
            self._seen = own if residual is None else own + residual[self._watch].float()

    def _change(self, hidden: Tensor, residual: Tensor | None, changed: Tensor) -> None:
        at_once = max(1, CHUNK // (2 * self._edits * hidden.shape[-1]))
        for rows, slots in zip(changed.split(at_once), self._slots.split(at_once), strict=True):
            own = hidden[rows].float()
            x = own if residual is None else own + residual[rows].float()
            delta = change(x, slots, self.table, self._thresholds(x), self._edits)
            hidden.index_copy_(0, rows, (own + delta).to(hidden.dtype))


class DeviceLayer(SteeredLayer):
    """On a GPU: one launch over all rows, from tensors that stay where they are, as CUDA graphs need it."""

    def __init__(self, table: Table, rankings: list[Ranking], max_rows: int, kept: torch.dtype | None) -> None:
        super().__init__(table, rankings)
        device, width = table.counts.device, table.decoders.shape[-1]
        self._slots = torch.zeros(max_rows, dtype=torch.int32, device=device)
        self._used = 0
        # A graph that was captured copies in every step, whether somebody reads or not.
        self._stream = None if kept is None else torch.zeros(max_rows, width, dtype=kept, device=device)
        self._watch: Tensor | None = None

    def take(self, slots: Tensor, edits: int) -> None:
        count = len(slots)
        self._slots[:count] = slots if edits else 0
        self._slots[count : self._used] = 0
        self._used = count if edits else 0

    def rest(self) -> None:
        self._slots[: self._used] = 0
        self._used = 0

    def watch(self, rows: Tensor) -> None:
        self._watch = rows

    def watched(self) -> Tensor:
        rows, self._watch = self._watch, None
        assert rows is not None and self._stream is not None, "this layer does not keep its stream"
        return self._stream[rows]

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        from specdec.steering.triton import change_in_place

        x = hidden
        if self._rankings:
            x = hidden.float() if residual is None else hidden.float() + residual.float()
        change_in_place(hidden, residual, self._slots, self.table, self._thresholds(x))
        if self._stream is not None:
            kept = self._stream[: len(hidden)]
            if residual is None:
                kept.copy_(hidden)
            else:
                torch.add(hidden, residual, out=kept)


def steered_layer(
    table: Table, rankings: list[Ranking], max_rows: int, kept: torch.dtype | None = None
) -> SteeredLayer:
    """Of the table's device. max_rows: of a step; kept: the stream's type where it can be read, else None."""
    if table.counts.device.type == "cpu":
        return HostLayer(table, rankings)
    return DeviceLayer(table, rankings, max_rows, kept)


def name_of(layer: int) -> str:
    """The layer's entry in vLLM's static forward context."""
    return f"specdec.steering.{layer}"


def _steer(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    get_forward_context().no_compile_layers[name_of(layer)].apply(hidden, residual)


def _steer_fake(hidden: Tensor, residual: Tensor | None, layer: int) -> None:
    return None


direct_register_custom_op("specdec_steer", _steer, mutates_args=["hidden"], fake_impl=_steer_fake)


def install_hooks(model: nn.Module, layers: dict[int, SteeredLayer], count: int, context: dict[str, Any]) -> None:
    """Hooks on the decoder layers of a model with `count` of them. context: the engine's static forward context."""
    modules = decoder_layers(model, count)
    for number, steered in layers.items():
        context[name_of(number)] = steered
        modules[number].register_forward_hook(_Hook(number))


class _Hook:
    """Decoder layers return the stream as (hidden, residual), or whole."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, module: nn.Module, given: Any, output: Any) -> None:
        hidden, residual = output[:2] if isinstance(output, tuple) else (output, None)
        torch.ops.vllm.specdec_steer(hidden, residual, self._number)


def decoder_layers(model: nn.Module, count: int) -> nn.ModuleList:
    """The model's decoder layers. SpecdecError: it has none of that number."""
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.rpartition(".")[2] in ("layers", "h")
    ]
    if len(found) != 1:
        raise SpecdecError(
            f"steering: cannot tell the {count} decoder layers of {type(model).__name__} "
            f"({len(found)} candidates): this model cannot be steered"
        )
    return found[0]
