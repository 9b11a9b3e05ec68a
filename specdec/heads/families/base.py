"""What the head needs to know about a family of targets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """Constructors of the parts that a head borrows from its target's family.

    name: model type in the target's config.json; architecture: the class name of its causal language model.
    layer(config) -> decoder layer, with `self_attn`, `mlp`, `input_layernorm`, `post_attention_layernorm`, pre-norm.
    norm(config) -> RMSNorm over the hidden size; rotary(config) -> module (x, position_ids) -> (cos, sin).
    qkv(attention, x [B, T, d]) -> q [B, H, T, D], k and v [B, H_kv, T, D], normalised where the family does that, not
    yet rotated.
    """

    name: str
    architecture: str
    layer: Callable[[Any], nn.Module]
    norm: Callable[[Any], nn.Module]
    rotary: Callable[[Any], nn.Module]
    qkv: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]


def projected_qkv(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by plain projections (with bias where the projection has one)."""
    shape = (*x.shape[:-1], -1, attention.head_dim)
    q, k, v = (p(x).view(shape).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    return q, k, v


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, H, T, D] by cos, sin [B, T, D], halves convention (RoFormer, arXiv 2104.09864, eq. 34).

    Computed in the type of cos, as the engines do (float32), and returned in x's.
    """
    half = x.shape[-1] // 2
    wide = x.to(cos.dtype)
    turned = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    return (wide * cos.unsqueeze(1) + turned * sin.unsqueeze(1)).to(x.dtype)
