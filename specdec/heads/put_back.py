"""A head as the MTP layer of a copy of its target's checkpoint, for engines that serve the family's own MTP."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from specdec.drafting.calibration import CALIBRATION
from specdec.files import replace_file
from specdec.heads.checkpoint import CONFIG, check_fits, load_head_config, read_tensors
from specdec.heads.folders import link_tree, new_folder, own_copy
from specdec.heads.native import NativeLayer
from specdec.heads.target_config import load_config
from specdec.heads.weight_files import FLOATS, INDEX, WeightFiles, overwrite

ADDED = "model-mtp.safetensors"  # the file of a layer that the checkpoint did not hold


def put_back(head: Path, model: Path, output: Path) -> None:
    """Writes a copy of the checkpoint in `model` with this head as its MTP layer.

    Files without MTP tensors become hard links where the file system allows. Those with them are copied and written
    over in place, so types, order and the index stay as they are; a checkpoint without MTP (training frameworks drop
    it) gets a file more and an index that names it. Raises SpecdecError: a head of another target or layout, and as
    `native.extract`.
    """
    target, config = load_config(model), load_head_config(head)
    check_fits(config, target, head)
    layer, tensors, files = NativeLayer(config), read_tensors(head, config), WeightFiles(model)
    present = any(name.startswith(layer.prefix) for name in files.entries)
    if present:
        layer.check(files)
    with new_folder(output) as partial:
        link_tree(model, partial)
        (_replace if present else _add)(partial, files, tensors, layer)
        (partial / CALIBRATION).unlink(missing_ok=True)  # of the layer that was there
        if (head / CALIBRATION).exists():
            shutil.copyfile(head / CALIBRATION, partial / CALIBRATION)


def _replace(folder: Path, files: WeightFiles, tensors: dict[str, Tensor], layer: NativeLayer) -> None:
    """Writes the head over the MTP tensors of `folder`, each in the type that it has there."""
    by_file: dict[str, dict[str, Tensor]] = {}
    for own, part in layer.pieces(files.entries).items():
        for name, where in part:
            entry = files.entries[name]
            by_file.setdefault(entry.file, {})[name] = tensors[own][where].to(FLOATS[entry.dtype])
    for file, content in by_file.items():
        own_copy(folder / file)
        overwrite(folder / file, content)


def _add(folder: Path, files: WeightFiles, tensors: dict[str, Tensor], layer: NativeLayer) -> None:
    """Gives `folder`, which has no MTP tensors, a file with them; the index names it, config.json counts the layer."""
    # Experts in one tensor where the target's own layers have them so, else one tensor for each.
    stacked = any(name.endswith("mlp.experts.gate_up_proj") for name in files.entries)
    present = [layer.name(own) for own in tensors] if stacked else []
    content = {
        name: tensors[own][where].contiguous() for own, part in layer.pieces(present).items() for name, where in part
    }
    for name, original in layer.copies.items():
        if original in files.entries:  # a tied LM head is not
            content |= {name: files.read([original])[original]}
    replace_file(folder / ADDED, save(content, metadata={"format": "pt"}))
    _write_index(folder, files, content)
    _write_count(folder, layer.names.count)


def _write_index(folder: Path, files: WeightFiles, added: dict[str, Tensor]) -> None:
    path = folder / INDEX
    index = json.loads(path.read_text("utf-8")) if path.exists() else {}
    index["weight_map"] = {name: entry.file for name, entry in files.entries.items()} | dict.fromkeys(added, ADDED)
    size = sum(entry.size for entry in files.entries.values()) + sum(t.nbytes for t in added.values())
    index["metadata"] = {**index.get("metadata", {}), "total_size": size}
    replace_file(path, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())


def _write_count(folder: Path, field: str) -> None:
    path = folder / CONFIG
    config = json.loads(path.read_text("utf-8"))
    config.get("text_config", config)[field] = 1
    replace_file(path, (json.dumps(config, indent=2) + "\n").encode())
