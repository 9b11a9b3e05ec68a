"""Target families: what a decoder layer is made of, and where checkpoints keep their own MTP layer; one file each."""

from typing import Any

from specdec.heads.families.base import Family
from specdec.registry import Registry

__all__ = ["FAMILIES", "Family", "family_of", "get_family"]

FAMILIES: Registry[Family] = Registry("target family")
EAGLE = "eagle"  # no family of targets: what a head in the EAGLE layout is made of


# By the model type in the target's (text) config.json.
for _name, _module, _attribute in (
    ("llama", "llama", "FAMILY"),
    ("qwen2", "qwen2", "FAMILY"),
    ("qwen3", "qwen3", "FAMILY"),
    ("mimo", "mimo", "FAMILY"),
    ("deepseek_v3", "deepseek_v3", "FAMILY"),
    ("qwen3_next", "qwen3_next", "FAMILY"),
    ("qwen3_5_text", "qwen3_5", "FAMILY"),
    ("qwen3_5_moe_text", "qwen3_5", "MOE"),
):
    FAMILIES.register_attribute(_name, f"{__name__}.{_module}", _attribute)


def get_family(name: str) -> Family:
    """The family of this name. Raises SpecdecError that lists the supported names."""
    if name == EAGLE:
        from specdec.heads.families.eagle import FAMILY

        return FAMILY
    return FAMILIES.get(name)


def family_of(target_config: Any) -> Family:
    """The family of a target, by the `model_type` of its configuration (a multimodal one: of the text part)."""
    return get_family(str(target_config.get_text_config().model_type))
