"""Qwen3: an RMSNorm over each head's queries and keys before the rotation."""

from typing import Any

from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from specdec.heads.families.base import Family, Projected, project_plainly


def _project(attention: Any, x: Tensor) -> Projected:
    query, key, value, _ = project_plainly(attention, x)
    return Projected(attention.q_norm(query), attention.k_norm(key), value)


FAMILY = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    layer=lambda config: Qwen3DecoderLayer(config, 0),
    norm=lambda config: Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen3RotaryEmbedding(config),
    project=_project,
)
