"""Qwen3: an RMSNorm over each head's queries and keys before the rotation."""

from typing import Any

from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from specdec.heads.families.base import Family, projected_qkv


def _qkv(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = projected_qkv(attention, x)
    return attention.q_norm(q), attention.k_norm(k), v


FAMILY = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    layer=lambda config: Qwen3DecoderLayer(config, 0),
    norm=lambda config: Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen3RotaryEmbedding(config),
    qkv=_qkv,
)
