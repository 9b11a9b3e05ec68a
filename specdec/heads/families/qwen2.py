"""Qwen2: queries, keys and values have a bias, which the projections carry themselves."""

from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from specdec.heads.families.base import Family, project_plainly

FAMILY = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    layer=lambda config: Qwen2DecoderLayer(config, 0),
    norm=lambda config: Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen2RotaryEmbedding(config),
    project=project_plainly,
)
