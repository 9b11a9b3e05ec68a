"""What the head needs to know about a family of targets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn


class Projected(NamedTuple):
    """What attention reads: query [B, H, T, D], key [B, H_kv, T, D], value [B, H_kv, T, D_v].

    gate [B, T, H * D_v], where the family has one: what is attended to is multiplied by its sigmoid.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    gate: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """What engines do around the layer, which differs by family; a head's config.json states it.

    concat_order: of the two halves that eh_proj reads. zero_first_embedding: the embedding at position 0 is zero.
    target_states: which hidden state of the target the first step gets, behind or before the target's final norm.
    """

    concat_order: Literal["embedding_hidden", "hidden_embedding"] = "embedding_hidden"
    zero_first_embedding: bool = False
    target_states: Literal["post_norm", "pre_norm"] = "post_norm"


@dataclass(frozen=True)
class NativeMTP:
    """Where a checkpoint of the family keeps the one MTP layer that it was released with.

    prefix(target's text configuration as a dict) -> what the names of the layer's tensors begin with.
    modules: our module -> theirs behind the prefix. count: configuration field that says how many MTP layers there are.
    copies: tensor behind the prefix -> the target's tensor that it repeats, which is not the head's to train.
    """

    prefix: Callable[[dict[str, Any]], str]
    modules: dict[str, str]
    count: str
    copies: dict[str, str] = field(default_factory=dict)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, H, T, D] by cos, sin [B, T, R], halves convention (RoFormer, arXiv 2104.09864, eq. 34).

    The first R of the D dimensions rotate. Computed in the type of cos, as the engines do (float32), and returned in
    x's.
    """
    size = cos.shape[-1]
    wide = x[..., :size].to(cos.dtype)
    turned = torch.cat((-wide[..., size // 2 :], wide[..., : size // 2]), dim=-1)
    rotated = (wide * cos.unsqueeze(1) + turned * sin.unsqueeze(1)).to(x.dtype)
    return rotated if size == x.shape[-1] else torch.cat((rotated, x[..., size:]), dim=-1)


@dataclass(frozen=True)
class Family:
    """Constructors of the parts that a head borrows from its target's family.

    name: model type in the target's (text) config.json; architecture: the class name of its causal language model.
    layer(config) -> decoder layer, with `self_attn`, `mlp`, `input_layernorm`, `post_attention_layernorm`, pre-norm.
    norm(config) -> RMSNorm over the hidden size; rotary(config) -> module (x, position_ids) -> (cos, sin).
    project(attention, x [B, T, d]) -> Projected, normalised where the family does that, not yet rotated.
    rotate(query or key, cos, sin) -> rotated. native: for families whose checkpoints bring MTP; a head for them has its
    form. layer_config(target's config as a dict) -> what layer, norm and rotary get; None: the target's, one layer.
    """

    name: str
    architecture: str
    layer: Callable[[Any], nn.Module]
    norm: Callable[[Any], nn.Module]
    rotary: Callable[[Any], nn.Module]
    project: Callable[[Any, Tensor], Projected]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_halves
    step: Step = Step()
    native: NativeMTP | None = None
    layer_config: Callable[[dict[str, Any]], Any] | None = None


def project_plainly(attention: Any, x: Tensor) -> Projected:
    """Queries, keys and values by plain projections (with bias where the projection has one)."""
    shape = (*x.shape[:-1], -1, attention.head_dim)
    return Projected(
        *(p(x).view(shape).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    )
