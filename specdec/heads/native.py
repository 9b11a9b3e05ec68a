"""The MTP layer that a checkpoint was released with, read as a head.

Our tensors are theirs under other names, with one difference: the experts' matrices stand in one tensor here, and there
in one tensor or in one for each expert.
"""

import shutil
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from specdec.drafting.calibration import CALIBRATION
from specdec.errors import SpecdecError
from specdec.heads.checkpoint import head_shapes, write_head
from specdec.heads.config import HeadConfig
from specdec.heads.folders import new_folder
from specdec.heads.target_config import load_config
from specdec.heads.weight_files import FLOATS, Entry, WeightFiles


class Piece(NamedTuple):
    """A tensor of the checkpoint, and where in ours it stands."""

    name: str
    where: tuple[int | slice, ...]


def extract(model: Path, output: Path) -> None:
    """Writes the MTP layer of the checkpoint in `model` as a head, its tensors in the checkpoint's own types.

    Raises SpecdecError: a family or checkpoint without MTP or with several layers of it, quantised tensors, tensors
    missing, misshapen or unknown, `output` exists.
    """
    config = HeadConfig.for_target(load_config(model))
    tensors = read_native(model, config)
    with new_folder(output) as partial:
        write_head(partial, config, tensors)
        if (model / CALIBRATION).exists():
            shutil.copyfile(model / CALIBRATION, partial / CALIBRATION)


def read_native(model: Path, config: HeadConfig) -> dict[str, Tensor]:
    """The tensors of a head with this (native) configuration from its target's checkpoint; raises as `extract`."""
    layer, files = check_native(model, config)
    pieces = layer.pieces(files.entries)
    found = files.read([piece.name for part in pieces.values() for piece in part])
    tensors = {}
    for own, part in pieces.items():
        tensors[own] = torch.empty(layer.shapes[own], dtype=found[part[0].name].dtype)
        for piece in part:
            tensors[own][piece.where] = found[piece.name]
    return tensors


def check_native(model: Path, config: HeadConfig) -> tuple["NativeLayer", WeightFiles]:
    """What `read_native` reads and from which files, once the files' headers are found in order."""
    layer = NativeLayer(config)
    if layer.count > 1:
        raise SpecdecError(
            f"the model at {model} has {layer.count} MTP layers ({layer.names.count}): only one is supported"
        )
    files = WeightFiles(model)
    layer.check(files)
    return layer, files


class NativeLayer:
    """A head's tensors as those of a checkpoint. SpecdecError: the family's checkpoints have no MTP layer.

    names: of the family. shapes: of our tensors. prefix: what the checkpoint's begin with. count: of MTP layers.
    copies: tensors of the layer that repeat one of the target -> that one.
    """

    def __init__(self, config: HeadConfig) -> None:
        names, target = config.family().native, config.target_config
        if names is None or target is None:
            raise SpecdecError(
                f"models of the family {config.target_family!r} have no MTP layer of their own: a head for them is "
                "served from its own folder, or exported with `specdec head export`"
            )
        self.names, self.shapes = names, head_shapes(config)
        self.prefix, self.count = names.prefix(target), target.get(names.count) or 1
        self.copies = {self.prefix + name: original for name, original in names.copies.items()}

    def pieces(self, present: Container[str]) -> dict[str, list[Piece]]:
        """What each of our tensors is made of, in a checkpoint that holds the tensors `present`."""
        found = {}
        for own, shape in self.shapes.items():
            name = self.name(own)
            whole = len(shape) < 3 or name in present
            found[own] = [Piece(name, (slice(None),))] if whole else _by_expert(name, shape)
        return found

    def name(self, own: str) -> str:
        """The checkpoint's name of our tensor `own`, in one piece."""
        module, rest = own.split(".", 1)
        theirs = self.names.modules[module]
        return f"{self.prefix}{theirs}{'.' if theirs else ''}{rest}"

    def check(self, files: WeightFiles) -> None:
        """Raises SpecdecError where the checkpoint's MTP tensors are not what our module has, or more than that."""
        entries, folder = files.entries, files.folder
        here = {name for name in entries if name.startswith(self.prefix)}
        if not here:
            raise SpecdecError(
                f"the model at {folder} holds no MTP layer ({self.prefix}*), though its family has one: use the "
                "checkpoint as it was released; what was trained from it often lacks the layer"
            )
        known = set(self.copies)
        for own, part in self.pieces(entries).items():
            for piece in part:
                wanted = tuple(torch.empty(self.shapes[own], device="meta")[piece.where].shape)
                _check_piece(folder, piece.name, entries.get(piece.name), wanted)
                known.add(piece.name)
        if unknown := sorted(name for name in here - known if not name.endswith("rotary_emb.inv_freq")):
            raise SpecdecError(
                f"the model at {folder} holds {len(unknown)} unknown MTP tensor(s), the first {unknown[0]!r}: is it "
                "quantised, or of another version of its family? Use the checkpoint as it was released"
            )
        for name, original in self.copies.items():
            if {name, original} <= entries.keys() and not torch.equal(*files.read([name, original]).values()):
                raise SpecdecError(
                    f"{name} in {folder} differs from {original}, which a head uses instead: it cannot be represented"
                )


def _by_expert(name: str, shape: tuple[int, ...]) -> list[Piece]:
    """experts.gate_up_proj [E, 2 I, d] -> experts.e.gate_proj and up_proj [I, d]; experts.down_proj alike."""
    base, kind = name.rsplit(".", 1)
    if kind == "down_proj":
        return [Piece(f"{base}.{e}.down_proj.weight", (e,)) for e in range(shape[0])]
    half = shape[1] // 2
    parts = (("gate_proj", slice(0, half)), ("up_proj", slice(half, None)))
    return [Piece(f"{base}.{e}.{part}.weight", (e, rows)) for e in range(shape[0]) for part, rows in parts]


def _check_piece(folder: Path, name: str, entry: Entry | None, shape: tuple[int, ...]) -> None:
    if entry is None:
        raise SpecdecError(f"the MTP layer of the model at {folder} lacks {name!r}: copy the model again")
    if entry.dtype not in FLOATS:
        raise SpecdecError(f"{name} in {folder} is quantised ({entry.dtype}): train in bfloat16, and quantise again")
    if entry.shape != shape:
        raise SpecdecError(f"{name} in {folder} has the shape {list(entry.shape)} where {list(shape)} is needed")
