"""Before each step: which rows are steered, and by which program. Drafts and bonus rows are rows like all others."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from specdec.engines.vllm.steering.layers import SteeredLayer
from specdec.engines.vllm.steering.programs import Programs
from specdec.upload import to_device


class Rows:
    """layers: by number."""

    def __init__(self, layers: dict[int, SteeredLayer], programs: Programs, device: torch.device) -> None:
        self._layers, self._programs, self._device = layers, programs, device
        self._idle = True

    def prepare(
        self, request_ids: Sequence[str], params: Sequence[object], prompt_lengths: Sequence[int], counts: np.ndarray,
        positions: Tensor,
    ) -> None:  # fmt: skip
        """Of a step with counts[b] rows of each request, at positions [n], which may be on the device only."""
        found = [self._programs.slot(*one) for one in zip(request_ids, params, strict=True)]
        if not any(slot for slot, _ in found):
            self.rest()
            return
        # The first position that is steered: 0, or the first generated token's.
        begin = [
            length if program is not None and program.on == "generated" else 0
            for length, (_, program) in zip(prompt_lengths, found, strict=True)
        ]
        slots = to_device(torch.from_numpy(np.repeat([slot for slot, _ in found], counts)), self._device)
        first = to_device(torch.from_numpy(np.repeat(begin, counts)), self._device)
        slots = torch.where(positions[: len(slots)] >= first, slots, 0)
        self._idle = False
        most = self._programs.counts({slot for slot, _ in found})
        for number, layer in self._layers.items():
            layer.take(slots, most.get(number, 0))

    def rest(self) -> None:
        """Of a step in which nobody is steered."""
        if not self._idle:
            self._idle = True
            for layer in self._layers.values():
                layer.rest()
