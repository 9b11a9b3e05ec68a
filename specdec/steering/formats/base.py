"""What an SAE format is, and what the formats share."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.steering.activations import Gated
from specdec.steering.formats.files import Tensors, read_json, read_pickle, read_safetensors
from specdec.steering.sae import SAE

_PART = 4096  # features folded at a time: float64 copies of whole encoders would take gigabytes


@dataclass(frozen=True)
class Source:
    """What the user named: a folder, or a weight file in one. k: features per token, where the user says it.

    outline: shapes without values are wanted; see `outline_sae`.
    """

    path: Path
    k: int | None = None
    outline: bool = False

    def weights(self, name: str) -> Path | None:
        """The weight file with this name (relative to the SAE's folder): in the folder named, or named itself."""
        if self.path.is_dir():
            return self.path / name if (self.path / name).is_file() else None
        return self.path if self.path.name == Path(name).name and self.path.is_file() else None

    @cached_property
    def pickled(self) -> Tensors | None:
        """What stands in the .pt or .pth file that was named, or in the only one in the folder; None: there is none.

        SpecdecError: several; damaged; one that would run code.
        """
        if self.path.is_file():
            return read_pickle(self.path, self.outline) if self.path.suffix in (".pt", ".pth") else None
        files = sorted(p for p in self.path.iterdir() if p.suffix in (".pt", ".pth"))
        if len(files) > 1:
            names = ", ".join(p.name for p in files[:3])
            raise SpecdecError(f"{self.path} holds {len(files)} SAEs ({names} ...): name one of these files")
        return read_pickle(files[0], self.outline) if files else None

    def in_path(self, pattern: str) -> re.Match[str] | None:
        """The last place where a part of the path matches: releases say layer and model in the names of folders."""
        found = (re.search(pattern, part) for part in reversed(self.path.absolute().parts))
        return next((match for match in found if match), None)


class Format(Protocol):
    """files: what stands on disk, for error messages."""

    name: str

    @property
    def files(self) -> str: ...

    def fits(self, source: Source) -> bool:
        """Whether this is the format's; reads no more than it must."""

    def read(self, source: Source) -> SAE:
        """SpecdecError: one sentence that names file and tensor, or the setting that is not supported."""


class SafetensorsFormat:
    """What formats of a weight file and a JSON file share. weights, config: their places in the SAE's folder."""

    weights: str
    config: str

    @property
    def files(self) -> str:
        return f"{self.config}, {self.weights}"

    def fits(self, source: Source) -> bool:
        return source.weights(self.weights) is not None

    def opened(self, source: Source) -> tuple[dict[str, Any], Tensors, Path]:
        """What the JSON file says, the tensors, and where the JSON file is."""
        path = source.weights(self.weights)
        assert path is not None, "fits() was not asked"
        place = path.parents[len(Path(self.weights).parts) - 1] / self.config
        return read_json(place), read_safetensors(path, source.outline), place


def without_bias(b_enc: Tensor, b_dec: Tensor, W_enc: Tensor) -> Tensor:
    """b_enc [s] for an encoder that reads x where the format's reads x - b_dec [d]. W_enc [d, s]. In float64."""
    parts = (b_dec.double() @ part.double() for part in W_enc.split(_PART, dim=1))
    return (b_enc.double() - torch.cat(list(parts))).float()


def gated(r_mag: Tensor, b_mag: Tensor, b_gate: Tensor, b_enc: Tensor) -> Gated:
    """From the published r_mag, b_mag, b_gate [s], where the SAE's b_enc [s] is b_gate as `without_bias` left it."""
    moved = r_mag.double().exp() * (b_enc.double() - b_gate.double())
    return Gated(r_mag, (b_mag.double() + moved).float(), b_enc)


def check_k(wanted: int | None, said: object, num_features: int, place: str) -> int:
    """k of a TopK SAE: what the user wants, or what the file says at `place`.

    SpecdecError: the file says another, or it is no number of features from 1 on.
    """
    if None not in (wanted, said) and wanted != said:
        raise SpecdecError(f"k {wanted} is given where {place} is {said!r}: leave it out")
    k = said if wanted is None else wanted
    if type(k) is not int or not 1 <= k <= num_features:
        raise SpecdecError(f"{place} is {k!r}: TopK needs a number of features from 1 to {num_features}")
    return k
