"""Qwen3-Next: full attention with an output gate, the first part of each head rotated, norms centred at zero, experts.

The target's other layers (gated delta nets) do not concern its MTP layer, which is one of full attention.
"""

from typing import Any

from torch import Tensor
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextDecoderLayer,
    Qwen3NextRMSNorm,
    Qwen3NextRotaryEmbedding,
)

from specdec.heads.families.base import Family, NativeMTP, Projected


def project_gated(attention: Any, x: Tensor) -> Projected:
    """Each head's rows of q_proj are [query | gate]; an RMSNorm over each head's query and key."""
    shape = (*x.shape[:-1], -1, attention.head_dim)
    query, gate = attention.q_proj(x).view(*x.shape[:-1], -1, 2 * attention.head_dim).chunk(2, dim=-1)
    key, value = (p(x).view(shape) for p in (attention.k_proj, attention.v_proj))
    query, key = attention.q_norm(query), attention.k_norm(key)
    return Projected(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), gate.flatten(2))


NATIVE = NativeMTP(
    prefix=lambda target: "mtp.",
    modules={
        "enorm": "pre_fc_norm_embedding",
        "hnorm": "pre_fc_norm_hidden",
        "eh_proj": "fc",
        "layer": "layers.0",
        "norm": "norm",
    },
    count="num_nextn_predict_layers",
)

FAMILY = Family(
    name="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    layer=lambda config: Qwen3NextDecoderLayer(config, 0),
    norm=lambda config: Qwen3NextRMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    rotary=lambda config: Qwen3NextRotaryEmbedding(config),
    project=project_gated,
    native=NATIVE,
)
