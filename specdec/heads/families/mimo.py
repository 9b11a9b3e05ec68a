"""MiMo: Qwen2's layers, and an MTP layer that reads the target's hidden states before its final norm.

As vLLM serves it (model_executor/models/mimo.py, mimo_mtp.py): its target hands on the states before the final norm,
the concatenation is [hidden, embedding], and the embedding at position 0 is zero. (SGLang's target hands on the states
behind the norm.) transformers has no MiMo of its own; the released folders bring code for it, which is Qwen2's.
"""

from typing import ClassVar

from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from specdec.heads.families.base import Family, NativeMTP, Step
from specdec.heads.families.qwen2 import FAMILY as QWEN2


class MiMoConfig(Qwen2Config):
    """Qwen2's, with the number of MTP layers."""

    model_type: ClassVar[str] = "mimo"
    num_nextn_predict_layers: int = 0


class MiMoForCausalLM(Qwen2ForCausalLM):
    """Qwen2's; the MTP layer's tensors are left out."""

    config_class = MiMoConfig
    _keys_to_ignore_on_load_unexpected = [r"^model\.mtp_layers\."]  # noqa: RUF012  the base declares it for objects


AutoConfig.register("mimo", MiMoConfig, exist_ok=True)
AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM, exist_ok=True)

FAMILY = Family(
    name="mimo",
    architecture="MiMoForCausalLM",
    layer=QWEN2.layer,
    norm=QWEN2.norm,
    rotary=QWEN2.rotary,
    project=QWEN2.project,
    step=Step(concat_order="hidden_embedding", zero_first_embedding=True, target_states="pre_norm"),
    native=NativeMTP(
        prefix=lambda target: "model.mtp_layers.0.",
        modules={
            "enorm": "token_layernorm",
            "hnorm": "hidden_layernorm",
            "eh_proj": "input_proj",
            "layer": "",
            "norm": "final_layernorm",
        },
        count="num_nextn_predict_layers",
    ),
)
