"""Qwen3.5, dense and with experts: Qwen3-Next's attention and names; text positions alone."""

from dataclasses import replace

from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5DecoderLayer,
    Qwen3_5RMSNorm,
    Qwen3_5TextRotaryEmbedding,
)
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import (
    Qwen3_5MoeDecoderLayer,
    Qwen3_5MoeRMSNorm,
    Qwen3_5MoeTextRotaryEmbedding,
)

from specdec.heads.families.base import Family
from specdec.heads.families.qwen3_next import NATIVE, project_gated

_NATIVE = replace(NATIVE, count="mtp_num_hidden_layers")

FAMILY = Family(
    name="qwen3_5_text",
    architecture="Qwen3_5ForCausalLM",
    layer=lambda config: Qwen3_5DecoderLayer(config, 0),
    norm=lambda config: Qwen3_5RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen3_5TextRotaryEmbedding(config),
    project=project_gated,
    native=_NATIVE,
)

MOE = Family(
    name="qwen3_5_moe_text",
    architecture="Qwen3_5MoeForCausalLM",
    layer=lambda config: Qwen3_5MoeDecoderLayer(config, 0),
    norm=lambda config: Qwen3_5MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen3_5MoeTextRotaryEmbedding(config),
    project=project_gated,
    native=_NATIVE,
)
