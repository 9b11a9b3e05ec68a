"""Folders in the EAGLE layout, which engines load beside a dense target without any plugin: written, and read.

vLLM:   --speculative-config '{"method": "eagle", "model": FOLDER, ...}'           (models/llama_eagle.py)
SGLang: --speculative-algorithm EAGLE --speculative-draft-model-path FOLDER        (models/llama_eagle.py)
Tensors: `fc.weight` [d, 2 d] over [embedding, hidden], `layers.0.*` of a Llama layer without its input norm; the
embedding and the LM head are the target's.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import LlamaConfig

from specdec.drafting.calibration import CALIBRATION
from specdec.errors import SpecdecError
from specdec.files import replace_file
from specdec.heads.checkpoint import CONFIG, WEIGHTS, head_shapes, load_head_config, read_tensors, write_head
from specdec.heads.config import HeadConfig
from specdec.heads.families.eagle import SHARED
from specdec.heads.folders import new_folder
from specdec.heads.target_config import load_config
from specdec.heads.weight_files import WeightFiles

# What each engine takes for a Llama EAGLE head.
ARCHITECTURES = {"vllm": "LlamaForCausalLM", "sglang": "LlamaForCausalLMEagle"}
_THEIRS = {"eh_proj.": "fc.", "layer.": "layers.0."}
# Of the target, and in many such folders; a head of ours always uses the target's.
_COPIES = {"embed_tokens.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}


def export_eagle(head: Path, output: Path, engine: str = "vllm") -> None:
    """Writes a head of the layout `eagle` as a folder that this engine loads.

    Raises SpecdecError: a head of another layout, a broken one, an unknown engine, `output` exists.
    """
    if engine not in ARCHITECTURES:
        raise SpecdecError(f"unknown engine {engine!r}: use one of {', '.join(ARCHITECTURES)}")
    config = load_head_config(head)
    if config.layout != "eagle":
        raise SpecdecError(
            f"the head at {head} has the layout {config.layout!r}, which stock engines have no class for: train one "
            "with `specdec train --layout eagle`"
        )
    tensors = {_their_name(name): tensor for name, tensor in read_tensors(head, config).items()}
    if engine == "sglang":  # its projection has a bias, which it would leave at random
        tensors["fc.bias"] = torch.zeros_like(tensors["fc.weight"][:, 0])
    dtype = str(tensors["fc.weight"].dtype).removeprefix("torch.")
    content = config.layer_config().to_dict() | {
        "architectures": [ARCHITECTURES[engine]], "model_type": "llama", "dtype": dtype, "torch_dtype": dtype,
    }  # fmt: skip
    with new_folder(output) as partial:
        replace_file(partial / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        replace_file(partial / CONFIG, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
        if (head / CALIBRATION).exists():
            shutil.copyfile(head / CALIBRATION, partial / CALIBRATION)


def import_eagle(folder: Path, model: Path, output: Path) -> None:
    """Writes the EAGLE head in `folder` as a head for the target in `model`, its tensors in their own types.

    Raises SpecdecError: no Llama EAGLE head of one layer, another vocabulary or width than the target's, tensors
    missing, misshapen or unknown, an embedding or LM head of its own, `output` exists.
    """
    config = HeadConfig.for_target(load_config(model), "eagle")
    assert config.target_config is not None
    config.target_config |= _layer_fields(folder, config)
    files = WeightFiles(folder)
    tensors = files.read(files.entries)
    _check_copies(folder, {name: tensors.pop(name) for name in _COPIES if name in tensors}, WeightFiles(model))
    if tensors.pop("fc.bias", torch.zeros(1)).any():
        raise SpecdecError(f"fc.bias in {folder} is not zero, and vLLM knows no such bias: use another head")
    found = {_our_name(name): tensor for name, tensor in tensors.items()}
    wanted, shapes = head_shapes(config), {name: tuple(tensor.shape) for name, tensor in found.items()}
    if shapes != wanted:
        wrong = sorted(name for name in shapes.keys() | wanted if shapes.get(name) != wanted.get(name))[0]
        raise SpecdecError(
            f"the head at {folder} has for {_their_name(wrong)!r} the shape {shapes.get(wrong)} where "
            f"{wanted.get(wrong)} is needed: only EAGLE heads of one Llama layer are supported"
        )
    with new_folder(output) as partial:
        write_head(partial, config, found, found["eh_proj.weight"].dtype)


def _layer_fields(folder: Path, config: HeadConfig) -> dict[str, Any]:
    """What the EAGLE head's configuration says of its layer, which need not be as wide inside as the target's."""
    try:
        content = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecdecError(f"{folder / CONFIG} cannot be read ({error}): give the folder of an EAGLE head") from None
    if content.get("model_type") != "llama" or content.get("num_hidden_layers") != 1:
        raise SpecdecError(
            f"{folder} holds a {content.get('model_type')!r} of {content.get('num_hidden_layers')} layers: only EAGLE "
            "heads of one Llama layer are supported"
        )
    for name in ("hidden_size", "vocab_size"):
        if content.get(name) != getattr(config, name):
            raise SpecdecError(
                f"the EAGLE head at {folder} does not fit this target: its {name} is {content.get(name)}, the target's "
                f"is {getattr(config, name)}"
            )
    whole = LlamaConfig.from_dict(content).to_dict()  # with defaults, and older folders' names of rotary fields
    return {name: whole[name] for name in SHARED if name in whole}


def _check_copies(folder: Path, copies: dict[str, Tensor], target: WeightFiles) -> None:
    for name, tensor in copies.items():
        original = _COPIES[name] if _COPIES[name] in target.entries else "model.embed_tokens.weight"  # a tied LM head
        of_target = target.read([original])[original]
        if tensor.shape != of_target.shape or not torch.equal(tensor, of_target.to(tensor.dtype)):
            raise SpecdecError(
                f"{name} in {folder} is not the target's, which a head uses instead: this one cannot be represented"
            )


def _their_name(name: str) -> str:
    for ours, theirs in _THEIRS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _our_name(name: str) -> str:
    for ours, theirs in _THEIRS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
