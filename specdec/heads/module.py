"""One multi-token-prediction (MTP) head: a single decoder layer that drafts for a target.

    x   = eh_proj(cat(enorm(embedding of the next token), hnorm(hidden)))
    out = norm(layer(x))                          # post-norm: the next step's hidden, and what the LM head reads

As in DeepSeek-V3 (arXiv 2412.19437, eq. 21-23); the embedding and the LM head are the target's and not owned. What
differs by family (the layer's parts, the order in the concatenation ...) stands in `families` and in the config.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from specdec.errors import SpecdecError
from specdec.heads.config import HeadConfig
from specdec.heads.families.base import Projected
from specdec.heads.unroll import unroll


class MTPHead(nn.Module):
    """The head's own tensors and the pieces of one step; `unroll` puts the steps together, and is its forward pass.

    recompute: see `unroll`.
    """

    recompute = False

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.family = config.family()
        layer_config = config.layer_config()
        hidden_size = layer_config.hidden_size
        self.enorm = self.family.norm(layer_config)
        self.hnorm = self.family.norm(layer_config)
        self.eh_proj = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.layer = self.family.layer(layer_config)
        self.norm = self.family.norm(layer_config)
        self.rotary = self.family.rotary(layer_config)

    def forward(
        self,
        embeddings: Tensor,
        hidden: Tensor,
        steps: int,
        position_ids: Tensor,
        document_ids: Tensor | None = None,
    ) -> list[Tensor]:
        """`unroll`: a call, so that what wraps a module for several processes sees it."""
        return unroll(self, embeddings, hidden, steps, position_ids, document_ids)

    def combine(self, embedding: Tensor, hidden: Tensor, position_ids: Tensor) -> Tensor:
        """Layer input [B, T, d] of the next tokens' embeddings and the previous hidden states, both [B, T, d].

        position_ids [B or 1, T]: where the hidden states stand.
        """
        if self.config.zero_first_embedding:
            embedding = embedding.masked_fill((position_ids == 0).unsqueeze(-1), 0.0)
        halves = [self.enorm(embedding), self.hnorm(hidden)]
        if self.config.concat_order == "hidden_embedding":
            halves.reverse()
        return self.eh_proj(torch.cat(halves, dim=-1))

    def project(self, x: Tensor, position_ids: Tensor) -> Projected:
        """What attention reads of layer input x [B, T, d], rotated to positions [B or 1, T]."""
        layer = cast(Any, self.layer)
        query, key, value, gate = self.family.project(layer.self_attn, layer.input_layernorm(x))
        cos, sin = self.rotary(torch.empty((), dtype=torch.float32, device=x.device), position_ids)
        return Projected(self.family.rotate(query, cos, sin), self.family.rotate(key, cos, sin), value, gate)

    def finish(self, x: Tensor, attended: Tensor, gate: Tensor | None) -> Tensor:
        """The rest of the layer and the last norm: x [B, T, d] and attention output [B, H, T, D_v] -> out [B, T, d]."""
        layer = cast(Any, self.layer)
        attended = attended.transpose(1, 2).flatten(2)
        if gate is not None:
            attended = attended * gate.sigmoid()
        x = x + layer.self_attn.o_proj(attended)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)

    @property
    def scaling(self) -> float:
        """What attention scores are multiplied by."""
        return cast(float, cast(Any, self.layer).self_attn.scaling)


@torch.no_grad()
def init_from_target(head: MTPHead, target: Any, noise: float = 0.01, generator: torch.Generator | None = None) -> None:
    """Starts the head from the target's last layer and final norm, and eh_proj from the mean of its two inputs.

    Not the default: on a 3.5 M-parameter target, with Muon at rate 0.02, a random start stood at acceptance 0.52 after
    50 steps, this one at 0.41. target: a causal language model with `model.layers` and `model.norm`. noise: standard
    deviation added to eh_proj, times sqrt(d). SpecdecError: that layer is of another kind than the head's.
    """
    layer = {k: v.float() for k, v in target.model.layers[-1].state_dict().items()}
    if head.config.layout == "eagle":  # has neither this norm nor one at its end
        layer.pop("input_layernorm.weight")
    else:
        head.norm.load_state_dict({k: v.float() for k, v in target.model.norm.state_dict().items()})
    if {k: v.shape for k, v in head.layer.state_dict().items()} != {k: v.shape for k, v in layer.items()}:
        raise SpecdecError(
            "the target's last layer is of another kind than the head's: start at random (--init random)"
        )
    head.layer.load_state_dict(layer)
    weight = head.eh_proj.weight
    size = weight.shape[0]
    half = 0.5 * torch.eye(size)
    scattered = noise / size**0.5 * torch.randn(weight.shape, generator=generator)
    weight.copy_(torch.cat((half, half), dim=1) + scattered)


@torch.no_grad()
def init_random(head: MTPHead, std: float = 0.02, generator: torch.Generator | None = None) -> None:
    """Normal matrices of this standard deviation and biases at zero; norms stay as a new head has them, at one."""
    for name, parameter in head.named_parameters():
        if parameter.ndim >= 2:  # 3: the matrices of several experts
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
        elif name.endswith("bias"):
            parameter.zero_()
