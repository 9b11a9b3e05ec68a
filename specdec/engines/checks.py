"""Checks of a model's and a head's folder before a server starts, without PyTorch: each failure is one sentence."""

import json
import re
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError

HEAD_MODEL_TYPE = "mtp"
HEAD_ARCHITECTURE = "SpecdecMTPHead"
HEAD_TENSORS = ("enorm.weight", "hnorm.weight", "eh_proj.weight", "norm.weight")
# Families whose models may bring an MTP layer, and the field that says how many.
OWN_MTP = {
    "mimo": "num_nextn_predict_layers",
    "deepseek_v3": "num_nextn_predict_layers",
    "qwen3_next": "num_nextn_predict_layers",
    "qwen3_5_text": "mtp_num_hidden_layers",
    "qwen3_5_moe_text": "mtp_num_hidden_layers",
}
# Layouts of heads that are not served from the head's own folder, and what to do with them.
ELSEWHERE = {
    "native": "write it into a copy of its model with `specdec head put-back`, and serve that",
    "eagle": "write it as a folder for engines with `specdec head export`, and serve with that",
}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """config.json of a folder; `what` names the folder's role in messages."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise SpecdecError(
            f"{what} folder {str(folder)!r} does not exist: give the path of a folder with a config.json."
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SpecdecError(
            f"{what} folder {str(folder)!r} has no config.json: give the folder that holds it."
        ) from None
    except (OSError, ValueError) as error:
        raise SpecdecError(f"{path} cannot be read ({error}): restore the file.") from None
    if not isinstance(config, dict):
        raise SpecdecError(f"{path} holds no JSON object: restore the file.")
    return config


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor of a safetensors file, from its header; SpecdecError if it is cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            return {name: file.get_slice(name).get_shape() for name in names}
    except (OSError, SafetensorError) as error:
        raise SpecdecError(f"{path} is truncated or no safetensors file ({error}): copy or train it again.") from None


def check_model(model: str) -> dict[str, Any] | None:
    """Config of a local model, its weight files read as far as their headers; None for a name on the Hub."""
    folder = Path(model)
    if not folder.exists() and HUB_NAME.fullmatch(model) and not folder.parent.exists():
        return None
    config = read_config(folder, "Model")
    files = sorted(folder.glob("*.safetensors"))
    if not files and not list(folder.glob("*.bin")):
        raise SpecdecError(
            f"Model folder {model!r} holds no weights (*.safetensors): give the folder of a complete model."
        )
    for file in files:
        tensor_shapes(file)
    return config


def check_head(head: str, target: dict[str, Any] | None) -> dict[str, Any]:
    """Config of a head, checked against its target's config (None: not known here) and against its own tensors."""
    folder = Path(head)
    config = read_config(folder, "Head")
    if config.get("model_type") != HEAD_MODEL_TYPE or HEAD_ARCHITECTURE not in (config.get("architectures") or []):
        raise SpecdecError(
            f"Head folder {head!r} is no head of specdec (model_type {config.get('model_type')!r}, architectures "
            f"{config.get('architectures')!r}): train one with `specdec train`."
        )
    layout = str(config.get("layout", "standalone"))
    if layout in ELSEWHERE:
        raise SpecdecError(f"Head {head!r} has the layout {layout!r}: {ELSEWHERE[layout]}.")
    _check_sizes(head, config, target)
    _check_family(head, config, target)
    _check_tensors(folder, config)
    return config


def check_eagle(head: str, target: dict[str, Any] | None) -> None:
    """Checks a folder that `is_eagle` against its target's config; the engine reads its tensors."""
    _check_sizes(head, read_config(Path(head), "Head"), target)


def is_eagle(head: str) -> bool:
    """Whether the folder holds a head in the EAGLE layout, as vLLM reads it; SpecdecError where it cannot be read."""
    config, path = read_config(Path(head), "Head"), Path(head) / "model.safetensors"
    one_layer = config.get("model_type") == "llama" and config.get("num_hidden_layers") == 1
    return one_layer and path.exists() and "fc.weight" in tensor_shapes(path)


def brings_mtp(target: dict[str, Any]) -> bool:
    """Whether a model of this configuration has an MTP layer of its own."""
    text = target.get("text_config", target)
    field = OWN_MTP.get(str(text.get("model_type")))
    return field is not None and (text.get(field, 1) or 0) > 0


def _check_sizes(head: str, config: dict[str, Any], target: dict[str, Any] | None) -> None:
    for name in ("hidden_size", "vocab_size"):
        if target is not None and config.get(name) != target.get(name):
            raise SpecdecError(
                f"Head {head!r} has {name} {config.get(name)}, but its target has {target.get(name)}: "
                "use a head that was trained for this model."
            )


def _check_family(head: str, config: dict[str, Any], target: dict[str, Any] | None) -> None:
    wanted = config.get("target_architecture")
    if target is not None and wanted not in (target.get("architectures") or [wanted]):
        raise SpecdecError(
            f"Head {head!r} was trained for a {wanted}, but the model is a {target['architectures'][0]}: "
            "use a head that was trained for this model."
        )


def _check_tensors(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "model.safetensors"
    if not path.exists():
        raise SpecdecError(f"Head folder {str(folder)!r} has no model.safetensors: copy or train it again.")
    shapes = tensor_shapes(path)
    missing = [name for name in HEAD_TENSORS if name not in shapes]
    if missing:
        raise SpecdecError(f"{path} lacks the tensor {missing[0]!r}: copy or train the head again.")
    width = config["hidden_size"]
    if list(shapes["eh_proj.weight"]) != [width, 2 * width]:
        raise SpecdecError(
            f"{path} has eh_proj.weight of shape {list(shapes['eh_proj.weight'])}, but its config.json says "
            f"hidden_size {width}: the two do not belong together; copy or train the head again."
        )
