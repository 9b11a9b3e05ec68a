"""Llama: plain projections."""

from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from specdec.heads.families.base import Family, project_plainly

FAMILY = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    layer=lambda config: LlamaDecoderLayer(config, 0),
    norm=lambda config: LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: LlamaRotaryEmbedding(config),
    project=project_plainly,
)
