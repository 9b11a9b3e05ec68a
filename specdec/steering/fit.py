"""Whether an SAE can read and steer a model."""

from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.steering.formats.files import read_json
from specdec.steering.sae import SAE


def model_config(folder: Path) -> dict[str, Any]:
    """The (text) configuration of the model in a folder, as it stands there."""
    if not (folder / "config.json").is_file():
        raise SpecdecError(f"there is no model at {folder}: give a folder with config.json, weights and tokenizer")
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def misfit(sae: SAE, config: dict[str, Any]) -> str | None:
    """Why the SAE cannot act in a model of this configuration, in one sentence; None: it can."""
    width, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if width is not None and width != sae.d_in:
        return f"the SAE at {sae.path} reads vectors of {sae.d_in} numbers, the model's have {width}: use its own model"
    if sae.layer is None:
        where = f"it reads {sae.hook}" if sae.hook else "its files do not say where it reads"
        return (
            f"the SAE at {sae.path} does not read the output of a decoder layer ({where}): steering needs one that does"
        )
    if layers is not None and sae.layer >= layers:
        return (
            f"the SAE at {sae.path} reads layer {sae.layer}, the model has layers 0 to {layers - 1}: use its own model"
        )
    return None
