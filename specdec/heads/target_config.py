"""The configuration of a target in a local folder."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from specdec.errors import SpecdecError
from specdec.heads.families import FAMILIES, family_of


def load_config(folder: str | Path) -> Any:
    """The (text) configuration of the model in a folder. SpecdecError: none there, damaged, an unsupported family."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise SpecdecError(f"there is no model at {folder}: give a folder with config.json, weights and tokenizer")
    try:
        model_type = json.loads(path.read_text("utf-8"))["model_type"]
        if model_type in FAMILIES.names():
            FAMILIES.get(model_type)  # imports the family, which may have a configuration that transformers lacks
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise unusable(folder, error) from error
    family_of(config)
    return config.get_text_config()


def unusable(folder: str | Path, error: Exception) -> SpecdecError:
    """transformers raises a dozen kinds; all of them mean that the folder is not usable."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return SpecdecError(f"the model at {folder} cannot be loaded ({first}): check the folder")
