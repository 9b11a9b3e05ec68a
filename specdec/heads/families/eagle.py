"""The EAGLE layout (arXiv 2401.15077): what stock engines load beside a dense target, without any plugin.

A Llama layer whatever the target's family is, without its input norm, and no norm before the concatenation or at the
end: the layer's output is both the next step's hidden state and what the LM head reads (vLLM: models/llama_eagle.py).
"""

from typing import Any

from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from specdec.heads.families.base import Family
from specdec.heads.families.llama import FAMILY as LLAMA

# Fields of a dense target that its EAGLE head's layer shares; `head_dim` where the target states it.
SHARED = (
    "bos_token_id", "eos_token_id", "head_dim", "hidden_act", "hidden_size", "intermediate_size",
    "max_position_embeddings", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_parameters",
    "tie_word_embeddings", "vocab_size",
)  # fmt: skip


def layer_config(target: dict[str, Any]) -> LlamaConfig:
    """The configuration of the one Llama layer of an EAGLE head, from its target's."""
    return LlamaConfig(num_hidden_layers=1, **{name: target[name] for name in SHARED if name in target})


def _layer(config: Any) -> nn.Module:
    layer: Any = LlamaDecoderLayer(config, 0)
    layer.input_layernorm = nn.Identity()
    return layer


FAMILY = Family(
    name="eagle",
    architecture="LlamaForCausalLM",
    layer=_layer,
    norm=lambda config: nn.Identity(),
    rotary=LLAMA.rotary,
    project=LLAMA.project,
    layer_config=layer_config,
)
