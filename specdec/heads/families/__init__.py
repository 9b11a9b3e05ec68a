"""Target families: what a decoder layer is made of, one file each."""

from importlib import import_module
from typing import Any

from specdec.errors import SpecdecError
from specdec.heads.families.base import Family

__all__ = ["FAMILIES", "Family", "family_of", "get_family"]

# Model type in the target's config.json -> module here that defines FAMILY; imported when first asked for.
FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def get_family(name: str) -> Family:
    """The family of this name. Raises SpecdecError that lists the supported names."""
    if name not in FAMILIES:
        raise SpecdecError(f"targets of the family {name!r} are not supported: use one of {', '.join(FAMILIES)}")
    family: Family = import_module(f"specdec.heads.families.{FAMILIES[name]}").FAMILY
    return family


def family_of(target_config: Any) -> Family:
    """The family of a target, by its configuration's `model_type`."""
    return get_family(str(getattr(target_config, "model_type", None)))
