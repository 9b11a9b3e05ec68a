"""The configuration of a head: what stands in its checkpoint's config.json."""

from dataclasses import asdict
from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PretrainedConfig

from specdec.errors import SpecdecError
from specdec.heads.families import Family, family_of, get_family
from specdec.heads.families.base import Step

Layout = Literal["standalone", "native", "eagle"]

CHECKPOINT_VERSION = 1

# Fields of the target's configuration that do not describe one decoder layer of it.
_NOT_OF_THE_LAYER = frozenset(
    {
        "architectures", "auto_map", "dtype", "layer_types", "max_window_layers", "model_type", "num_hidden_layers",
        "quantization_config", "torch_dtype", "transformers_version",
    }
)  # fmt: skip
# A head's one layer always attends to everything before it, whatever the target's layers do.
_FULL_ATTENTION: dict[str, Any] = {"sliding_window": None, "use_sliding_window": False, "layer_types": None}


class HeadConfig(PretrainedConfig):
    """Configuration of one MTP head; `HeadConfig.for_target(target.config)` makes it.

    layout: standalone is served from its own folder by our plugin; native has the form of the MTP layer of the target's
    family, and goes back into its checkpoint (native.py); eagle is exported for stock engines (eagle.py).
    Flat fields repeat those of the target that describe one decoder layer (`num_attention_heads`, `rope_parameters`,
    ...), so that an engine can build the layer from this object as it would from the target's own configuration.
    """

    model_type: ClassVar[str] = "mtp"
    specdec_version: int = CHECKPOINT_VERSION
    target_architecture: str = ""
    target_family: str = ""
    hidden_size: int = 0
    vocab_size: int = 0
    num_hidden_layers: int = 1
    num_nextn_predict_layers: int = 1
    layout: Layout = "standalone"
    concat_order: str = "embedding_hidden"
    zero_first_embedding: bool = False
    target_states: str = "post_norm"
    target_config: dict[str, Any] | None = None

    @classmethod
    def for_target(cls, target: PretrainedConfig, layout: Layout | None = None) -> "HeadConfig":
        """The configuration of a head for this target; layout None: native where the family has MTP, else standalone.

        Raises SpecdecError: an unsupported family, a layout that its heads cannot have.
        """
        family = family_of(target)
        layout = _checked_layout(layout, family)
        architecture = (target.architectures or [family.architecture])[0]
        target = target.get_text_config()
        whole = {k: v for k, v in target.to_dict().items() if k != "_name_or_path"}  # a path of the training machine
        flat = {k: v for k, v in whole.items() if k not in _NOT_OF_THE_LAYER}
        flat |= {k: v for k, v in _FULL_ATTENTION.items() if k in flat}
        own = {
            "architectures": ["SpecdecMTPHead"], "target_architecture": architecture, "target_family": family.name,
            "specdec_version": CHECKPOINT_VERSION, "num_hidden_layers": 1, "num_nextn_predict_layers": 1,
            "layout": layout, **asdict(family.step if layout == "native" else Step()), "target_config": whole,
            "dtype": whole.get("dtype"),
        }  # fmt: skip
        return cls(**{**flat, **own})

    def family(self) -> Family:
        """What the head's layer is made of."""
        return get_family("eagle" if self.layout == "eagle" else self.target_family)

    def layer_config(self) -> PretrainedConfig:
        """What the decoder layer is built from: the target's configuration cut down to one layer of full attention."""
        if not self.target_config or "model_type" not in self.target_config:
            raise SpecdecError("this head's config.json has no target_config: train the head again with this version")
        family = self.family()
        if family.layer_config is not None:
            return family.layer_config(self.target_config)
        whole = {**self.target_config, **_FULL_ATTENTION, "num_hidden_layers": 1}
        if "layer_types" in self.target_config:
            whole["layer_types"] = ["full_attention"]
        for name in ("model_type", "transformers_version", "quantization_config", "auto_map"):
            whole.pop(name, None)
        # The experts' own forward pass, which transformers takes too where nobody asks, but not without a warning.
        return AutoConfig.for_model(self.target_config["model_type"], experts_implementation="eager", **whole)


def _checked_layout(layout: Layout | None, family: Family) -> Layout:
    possible: tuple[Layout, ...] = ("standalone", "eagle") if family.native is None else ("native",)
    if layout is not None and layout not in possible:
        raise SpecdecError(
            f"a head for the family {family.name!r} cannot have the layout {layout!r}: use {' or '.join(possible)}"
        )
    return layout or possible[0]


def register() -> None:
    """Makes `AutoConfig.from_pretrained` read a head's config.json; safe to call twice."""
    AutoConfig.register("mtp", HeadConfig, exist_ok=True)
