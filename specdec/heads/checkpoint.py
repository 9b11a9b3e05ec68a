"""A head's folder: config.json and model.safetensors. Written in full or not at all; read with each fault named."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.files import replace_file
from specdec.heads.config import CHECKPOINT_VERSION, HeadConfig
from specdec.heads.module import MTPHead

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_head(head: MTPHead, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes the head's folder, its parameters in `dtype` (None: the target's own, as engines load it)."""
    dtype = dtype or _dtype(head.config)
    learnt = {name for name, _ in head.named_parameters()}  # what is not stays as it is (DeepSeek's float32 biases)
    tensors = {
        name: t.detach().to("cpu", dtype if name in learnt else t.dtype) for name, t in head.state_dict().items()
    }
    write_head(folder, head.config, tensors, dtype)


def write_head(
    folder: str | Path, config: HeadConfig, tensors: dict[str, Tensor], dtype: torch.dtype | None = None
) -> None:
    """Writes a head's folder with these tensors as they are; `dtype` (None: the target's) is what config.json says."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype or _dtype(config)).removeprefix("torch.")
    content = config.to_dict() | {"dtype": name, "architectures": ["SpecdecMTPHead"]}
    content["torch_dtype"] = name  # the older name of the field, still read by some engines
    # Not save_file: what it writes no other user may read, and servers often run as another.
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    replace_file(folder / WEIGHTS, save(whole, metadata={"format": "pt"}))
    replace_file(folder / CONFIG, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def load_head_config(folder: str | Path) -> HeadConfig:
    """Reads and checks config.json alone. Raises SpecdecError naming the fault."""
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise SpecdecError(f"there is no head at {folder}: give the folder that `specdec train` wrote")
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SpecdecError(f"{folder} holds no {CONFIG}: give the folder that `specdec train` wrote") from None
    except (OSError, ValueError) as error:
        raise SpecdecError(f"{path} cannot be read ({error}): copy the head again") from None
    if not isinstance(content, dict) or content.get("architectures") != ["SpecdecMTPHead"]:
        raise SpecdecError(f"{path} does not describe a specdec head: give the folder that `specdec train` wrote")
    if content.get("specdec_version") != CHECKPOINT_VERSION:
        version = content.get("specdec_version")
        raise SpecdecError(
            f"{path} has format version {version!r}, this specdec reads {CHECKPOINT_VERSION}: upgrade it"
        )
    content.pop("model_type", None)
    return HeadConfig(**content)


def load_head(folder: str | Path, target_config: Any = None, dtype: torch.dtype = torch.float32) -> MTPHead:
    """Reads a head in `dtype`; with the target's configuration given, first checks that the head fits it.

    Raises SpecdecError: another family, hidden size or vocabulary; a missing, unexpected or misshapen tensor; a
    truncated or missing file.
    """
    config = load_head_config(folder)
    if target_config is not None:
        check_fits(config, target_config, folder)
    head = MTPHead(config)
    head.load_state_dict(read_tensors(folder, config))
    return head.to(dtype)


def head_shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a head's tensors; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in MTPHead(config).state_dict().items()}


def check_fits(config: HeadConfig, target: Any, folder: str | Path) -> None:
    """Raises SpecdecError where the head was made for another family, hidden size, vocabulary or layer shape."""
    target = target.get_text_config()
    pairs = [("family", config.target_family, target.model_type)]
    pairs += [
        (name.replace("_", " "), getattr(config, name), getattr(target, name)) for name in ("hidden_size", "vocab_size")
    ]
    for name, own, wanted in pairs:
        if own != wanted:
            raise SpecdecError(
                f"the head at {folder} does not fit this target: its {name} is {own}, the target's is {wanted}; "
                "use the target it was trained for, or train a head for this one"
            )


def _dtype(config: HeadConfig) -> torch.dtype:
    dtype = config.dtype
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def read_tensors(folder: str | Path, config: HeadConfig) -> dict[str, Tensor]:
    """The tensors of the head in this folder as they are; raises as `load_head`."""
    path, wanted = Path(folder) / WEIGHTS, head_shapes(config)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_tensors(path, wanted, found)
            return {name: file.get_tensor(name) for name in wanted}
    except FileNotFoundError:
        raise SpecdecError(f"{path} is missing: copy the head's folder again, with its weights") from None
    except (SafetensorError, OSError) as error:
        raise SpecdecError(f"{path} is damaged or cut short ({error}): copy the head again") from None


def _check_tensors(path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    again = "copy the head again, or train it for this target"
    if missing := sorted(wanted.keys() - found.keys()):
        raise SpecdecError(f"{path} lacks {len(missing)} tensor(s), the first {missing[0]!r}: {again}")
    if unexpected := sorted(found.keys() - wanted.keys()):
        raise SpecdecError(
            f"{path} holds {len(unexpected)} tensor(s) of no use here, the first {unexpected[0]!r}: {again}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise SpecdecError(
                f"{path} holds {name!r} of shape {list(found[name])} where {list(shape)} is needed: {again}"
            )
