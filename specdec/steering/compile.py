"""From a program's words to its numbers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from specdec.steering import change
from specdec.steering.change import INF, Ranking, Reading
from specdec.steering.program import Edit, Program
from specdec.steering.sae import SAE


class Compiler:
    """saes and vectors (float32 [d]) by the names that programs use."""

    def __init__(self, saes: Mapping[str, SAE], vectors: Mapping[str, Tensor]) -> None:
        self._saes, self._vectors = saes, vectors
        self.rankings: dict[int, list[Ranking]] = defaultdict(list)  # of the TopK SAEs of each layer
        self._places: dict[str, int] = {}
        for name, sae in saes.items():
            if sae.activation.needs_all:
                here = self.rankings[_layer(sae)]
                self._places[name] = len(here)
                here.append(Ranking(sae))

    def compile(self, program: Program) -> dict[int, list[change.Edit]]:
        """The program's edits by layer, as Catalog.program has resolved them."""
        layers: dict[int, list[change.Edit]] = defaultdict(list)
        for edit in program.steer:
            assert edit.layer is not None
            layers[edit.layer].append(self._of_feature(edit) if edit.feature is not None else self._of_vector(edit))
        return dict(layers)

    def _of_feature(self, edit: Edit) -> change.Edit:
        assert edit.sae is not None and edit.feature is not None
        reading, decoder = self.reading(edit.sae, edit.feature), self._saes[edit.sae].W_dec[edit.feature]
        return self._made(edit, reading, decoder)

    def _of_vector(self, edit: Edit) -> change.Edit:
        given = edit.vector
        assert given is not None
        vector = self._vectors[given] if isinstance(given, str) else torch.tensor(given, dtype=torch.float32)
        direction = vector / vector.norm()
        if edit.add is not None and edit.norm is None:
            return self._made(edit, Reading(direction), vector)
        return self._made(edit, Reading(direction), direction)

    def _made(self, edit: Edit, reading: Reading, decoder: Tensor) -> change.Edit:
        factor, shift, ceiling = _amounts(edit)
        gate, above = None, -INF
        if edit.gate is not None:
            assert edit.gate.sae is not None
            gate, above = self.reading(edit.gate.sae, edit.gate.feature), edit.gate.above
        return change.Edit(
            reading, decoder, factor, shift, ceiling, only_active=edit.when == "active",
            by_norm=edit.norm == "residual", gate=gate, gate_above=above,
        )  # fmt: skip

    def reading(self, name: str, feature: int) -> Reading:
        """How a feature's activation is read."""
        sae = self._saes[name]
        offset = float(sae.b_enc[feature])
        gain, bias, threshold = (1.0, None, 0.0) if sae.activation.needs_all else sae.activation.of_one(feature)
        # The SAE's magnitude is gain · u + bias of u without the encoder's bias, which is this form's offset.
        return Reading(
            sae.W_enc[:, feature], offset, threshold, gain, 0.0 if bias is None else bias - gain * offset, floor=0.0,
            normalization=sae.normalization, topk=self._places.get(name, -1),
        )  # fmt: skip


def _amounts(edit: Edit) -> tuple[float, float, float]:
    """factor, shift, ceiling of f' = min(factor · f + shift, ceiling)."""
    value = edit.value
    return {
        "add": (1.0, value, INF),
        "scale": (value, 0.0, INF),
        "ablate": (0.0, 0.0, INF),
        "clamp": (0.0, value, INF),
        "cap": (1.0, 0.0, value),
    }[edit.change]


def _layer(sae: SAE) -> int:
    assert sae.layer is not None
    return sae.layer


def layers_of(program: Program) -> Sequence[int]:
    """The layers that a program acts at."""
    return sorted({edit.layer for edit in program.steer if edit.layer is not None})
