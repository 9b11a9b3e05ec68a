"""DeepSeek-V3: latent attention (MLA) and a layer of experts (arXiv 2412.19437).

Keys and values are expanded from the latent here, as the model card's equations have it (eq. 1-11); engines may keep
the latent in their cache and absorb the expansion into the queries, which is the same up to rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3DecoderLayer,
    DeepseekV3RMSNorm,
    DeepseekV3RotaryEmbedding,
)

from specdec.errors import SpecdecError
from specdec.heads.families.base import Family, NativeMTP, Projected, Step


def _layer(config: Any) -> nn.Module:
    if not config.rope_interleave:
        raise SpecdecError("rope_interleave false is not served by vLLM either: use a target that has it true")
    return DeepseekV3DecoderLayer(config, config.first_k_dense_replace)  # the first index with experts, as MTP has


def _project(attention: Any, x: Tensor) -> Projected:
    """MLA: each head's query and key are [not rotated | rotated]; the rotated part of the key is the same for all."""
    shape = (*x.shape[:-1], attention.num_heads, -1)
    if attention.q_lora_rank is None:
        query = attention.q_proj(x)
    else:
        query = attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(x)))
    latent, shared = attention.kv_a_proj_with_mqa(x).split([attention.kv_lora_rank, attention.qk_rope_head_dim], dim=-1)
    expanded = attention.kv_b_proj(attention.kv_a_layernorm(latent)).view(shape).transpose(1, 2)
    key, value = expanded.split([attention.qk_nope_head_dim, attention.v_head_dim], dim=-1)
    shared = shared.unsqueeze(1).expand(-1, attention.num_heads, -1, -1)
    return Projected(query.view(shape).transpose(1, 2), torch.cat((key, shared), dim=-1), value)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the last R dimensions of x [B, H, T, D] in pairs (0, 1), (2, 3) ...; cos, sin [B, T, R].

    The pairs come out as halves: queries and keys alike, so that their products are those of the pairs.
    """
    size = cos.shape[-1]
    cos, sin = (t[..., : size // 2].unsqueeze(1) for t in (cos, sin))
    rest, wide = x[..., :-size], x[..., -size:].to(cos.dtype)
    first, second = wide[..., 0::2], wide[..., 1::2]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((rest, rotated.to(x.dtype)), dim=-1)


FAMILY = Family(
    name="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    layer=_layer,
    norm=lambda config: DeepseekV3RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: DeepseekV3RotaryEmbedding(config),
    project=_project,
    rotate=_rotate,
    step=Step(zero_first_embedding=True),
    native=NativeMTP(
        prefix=lambda target: f"model.layers.{target['num_hidden_layers']}.",
        modules={"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "layer": "", "norm": "shared_head.norm"},
        count="num_nextn_predict_layers",
        copies={"embed_tokens.weight": "model.embed_tokens.weight", "shared_head.head.weight": "lm_head.weight"},
    ),
)
