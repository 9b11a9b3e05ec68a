"""What a request steers with under `"specdec"`: which directions of the residual stream to change, where, and how much.

    {"steer": [{"feature": 123, "add": 8},
               {"sae": "mid", "feature": 5, "clamp": 3, "when": "active"},
               {"feature": 7, "scale": 0, "if": {"feature": 9, "above": 0.5}},
               {"vector": "calm", "add": 0.2, "norm": "residual"},
               {"vector": [0.1, ...], "layer": 12, "cap": 1.5}],
     "on": "all"}

Each edit names a feature of one of the server's SAEs, or a vector (one of the server's, or its numbers and a layer),
and one change. With f the feature's activation (a vector's: the projection on its direction) and W its decoder row (a
vector's: its direction), the stream x becomes x + (f' - f) W:

    add     f' = f + value         a vector: x + value · vector; with "norm": "residual": x + value ‖x‖ direction
    scale   f' = value · f
    ablate  f' = 0
    clamp   f' = value             with "when": "active" only where f > 0
    cap     f' = min(f, value)

So what an SAE does not explain of x stays as it is. All edits of a layer read the x that came in. "if" lets an edit act
only where another feature of the same layer is above a number. "on": "all" acts on prompt and generated tokens,
"generated" on the generated ones alone. {"preset": NAME} takes one of the server's programs; "strength" beside it or
beside "steer" multiplies every `add`. What may stand beside a program: specdec/request.py.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field

from specdec.errors import SpecdecError
from specdec.steering.parts import Part, as_object, known, parse
from specdec.steering.reading import Read, check_read

CHANGES = ("add", "scale", "ablate", "clamp", "cap")
WHAT = "steering program"


class Gate(Part):
    """Lets an edit act where a feature of the edit's layer is above a number."""

    feature: Annotated[int, Field(ge=0)]
    above: float = 0.0
    sae: str | None = None


class Edit(Part):
    """One change of one direction; see the module's text. Exactly one of feature and vector, and of CHANGES, is set."""

    sae: str | None = None
    feature: Annotated[int, Field(ge=0)] | None = None
    vector: str | list[float] | None = None
    layer: int | None = None
    add: float | None = None
    scale: float | None = None
    ablate: Literal[True] | None = None
    clamp: float | None = None
    cap: float | None = None
    when: Literal["always", "active"] = "always"
    norm: Literal["residual"] | None = None
    gate: Gate | None = Field(default=None, alias="if")

    @property
    def change(self) -> str:
        """Its name."""
        return next(name for name in CHANGES if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """Its number; 0 for ablate."""
        return 0.0 if self.ablate else float(getattr(self, self.change))


class Program(Part):
    """Edits in their final form: SAEs, vectors and layers named, strength multiplied in."""

    steer: tuple[Edit, ...]
    on: Literal["all", "generated"] = "all"

    def canonical(self) -> str:
        """The same text for the same program."""
        return json.dumps(self.dumped(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """Tells programs apart: 128 bits of a hash of `canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:32]


class _Asked(Part):
    """As a request writes it."""

    steer: list[Edit] | None = None
    preset: str | None = None
    strength: float = 1.0
    on: Literal["all", "generated"] | None = None


@dataclass(frozen=True)
class Catalog:
    """What a server has to steer with. saes: name -> (layer, number of features); vectors: name -> layer.

    layers: where requests may bring vectors of their own, of `width` numbers. max_edits: of one layer in one program.
    max_strength: bound on the size of every number in an edit. max_read: features that one request may read.
    """

    width: int
    saes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    layers: frozenset[int] = frozenset()
    presets: Mapping[str, Any] = field(default_factory=dict)
    max_edits: int = 8
    max_strength: float = 1000.0
    max_read: int = 64

    def check_presets(self) -> None:
        """SpecdecError: one of the server's own presets is no program."""
        for name in self.presets:
            try:
                self.program({"preset": name})
            except SpecdecError as error:
                raise SpecdecError(f"steering.presets.{name}: {error}") from None

    def read(self, raw: Any) -> Read:
        """What a request reads, in its final form.

        SpecdecError: malformed, an unknown SAE, features out of range, none, or too many.
        """
        read = parse(Read, raw, "reading", "read.")
        if not self.max_read:
            raise SpecdecError("this server does not read features: steering.max_read is 0 in its settings")
        name = self._sae(read.sae, "read")
        check_read(read, name, self.saes[name][1], self.max_read)
        return read.model_copy(update={"sae": name})

    def program(self, raw: Any) -> Program:
        """A steering program alone, in its final form.

        SpecdecError, one sentence that names the value and the remedy: malformed, unknown names, a feature or layer out
        of range, a number that is no number or too large, more edits than allowed.
        """
        asked = parse(_Asked, as_object(raw), WHAT)
        on = asked.on
        if (asked.steer is None) == (asked.preset is None):
            raise SpecdecError('a steering program has either "steer", a list of edits, or "preset", a name')
        edits = asked.steer
        if edits is None:
            assert asked.preset is not None
            if asked.preset not in self.presets:
                raise SpecdecError(f"unknown preset {asked.preset!r}: {known(self.presets)}")
            own = parse(_Asked, as_object(self.presets[asked.preset]), WHAT)
            if own.steer is None:
                raise SpecdecError('a preset is a program with "steer", a list of edits')
            edits, on = own.steer, on or own.on
            asked = asked.model_copy(update={"strength": asked.strength * own.strength})
        if not edits:
            raise SpecdecError('"steer" is empty: give at least one edit, or leave the program out')
        resolved = [self._resolved(edit, asked.strength, f"steer[{i}]") for i, edit in enumerate(edits)]
        self._check_together(resolved)
        return Program(steer=tuple(resolved), on=on or "all")

    def _resolved(self, edit: Edit, strength: float, where: str) -> Edit:
        changes = [name for name in CHANGES if getattr(edit, name) is not None]
        if len(changes) != 1:
            has = " and ".join(changes) or "none"
            raise SpecdecError(f"{where} needs exactly one of {', '.join(CHANGES)}; it has {has}")
        if (edit.feature is None) == (edit.vector is None):
            raise SpecdecError(f'{where} needs either "feature", a number, or "vector", a name or a list of numbers')
        of_feature = edit.feature is not None
        edit = self._of_feature(edit, where) if of_feature else self._of_vector(edit, where)
        if edit.when == "active" and not (of_feature and edit.change == "clamp"):
            raise SpecdecError(f'{where}: "when": "active" belongs to the clamp of a feature')
        if edit.norm is not None and (of_feature or edit.change != "add"):
            raise SpecdecError(f'{where}: "norm": "residual" belongs to the add of a vector')
        if edit.gate is not None:
            edit = edit.model_copy(update={"gate": self._gate(edit, where)})
        if edit.change == "add":
            edit = edit.model_copy(update={"add": edit.value * strength})
        if not isfinite(edit.value) or abs(edit.value) > self.max_strength:
            raise SpecdecError(
                f"{where}: {edit.change} {edit.value:g} is larger than this server's max_strength {self.max_strength:g}"
            )
        return edit

    def _of_feature(self, edit: Edit, where: str) -> Edit:
        name = self._sae(edit.sae, where)
        layer = self._in_range(name, edit.feature, where)
        if edit.layer not in (None, layer):
            raise SpecdecError(f'{where}: SAE {name!r} reads layer {layer}, not {edit.layer}: leave "layer" out')
        return edit.model_copy(update={"sae": name, "layer": layer})

    def _of_vector(self, edit: Edit, where: str) -> Edit:
        if edit.sae is not None:
            raise SpecdecError(f'{where}: "sae" belongs to a feature, not to a vector')
        if isinstance(edit.vector, str):
            if edit.vector not in self.vectors:
                raise SpecdecError(f"{where}: unknown vector {edit.vector!r}: {known(self.vectors)}")
            own = self.vectors[edit.vector]
            if edit.layer not in (None, own):
                raise SpecdecError(
                    f'{where}: vector {edit.vector!r} is of layer {own}, not {edit.layer}: leave "layer" out'
                )
            return edit.model_copy(update={"layer": own})
        assert edit.vector is not None
        if len(edit.vector) != self.width:
            raise SpecdecError(
                f"{where}: the vector has {len(edit.vector)} numbers, this model's width is {self.width}"
            )
        if not any(edit.vector):
            raise SpecdecError(f"{where}: the vector is zero, so it has no direction")
        if edit.layer not in self.layers:
            raise SpecdecError(
                f"{where}: vectors of a request's own cannot act at layer {edit.layer}: "
                f"{known(sorted(self.layers))} (steering.layers in the server's settings)"
            )
        return edit

    def _gate(self, edit: Edit, where: str) -> Gate:
        gate = edit.gate
        assert gate is not None
        name = self._sae(gate.sae or edit.sae, f'{where}, "if"')
        layer = self._in_range(name, gate.feature, f'{where}, "if"')
        if layer != edit.layer:
            raise SpecdecError(
                f'{where}: "if" reads layer {layer}, the edit acts at {edit.layer}: both must be the same'
            )
        return gate.model_copy(update={"sae": name})

    def _sae(self, name: str | None, where: str) -> str:
        if name is None and len(self.saes) == 1:
            return next(iter(self.saes))
        if name is None:
            raise SpecdecError(f'{where}: say which SAE with "sae": {known(self.saes)}')
        if name not in self.saes:
            raise SpecdecError(f"{where}: unknown SAE {name!r}: {known(self.saes)}")
        return name

    def _in_range(self, name: str, feature: int | None, where: str) -> int:
        layer, count = self.saes[name]
        if feature is None or feature >= count:
            raise SpecdecError(f"{where}: feature {feature} is out of range: SAE {name!r} has 0 to {count - 1}")
        return layer

    def _check_together(self, edits: list[Edit]) -> None:
        for layer in {edit.layer for edit in edits}:
            here = [edit for edit in edits if edit.layer == layer]
            if len(here) > self.max_edits:
                raise SpecdecError(
                    f"{len(here)} edits at layer {layer}: this server allows {self.max_edits} (steering.max_edits)"
                )
        seen: set[tuple[str | None, int]] = set()
        for edit in edits:
            if edit.feature is None:
                continue
            if (edit.sae, edit.feature) in seen:
                raise SpecdecError(f"feature {edit.feature} is edited twice: join the edits into one")
            seen.add((edit.sae, edit.feature))
