"""All steps of a head at all anchors of a window at once, over the same cache that it meets in serving.

In serving, the head's cache up to the anchor j holds first-step entries (made of the target's own hidden states), and
behind them the entries of the chain that started at j. So the query of step k at anchor j scores
    step 1's keys at anchors i <= j            one causal matrix product [A, A]
    keys of steps 2..k at the same anchor j    k - 1 diagonal products   [A]
under one softmax. Positions: step k at anchor j rotates by position j + k - 1. Inputs of step k: the embedding of token
j + k and the previous step's output, behind the head's last norm (step 1: the target's hidden state h[j]).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:  # the module's forward is what stands here
    from specdec.heads.module import MTPHead


def unroll(
    head: MTPHead,
    embeddings: Tensor,
    hidden: Tensor,
    steps: int,
    position_ids: Tensor,
    document_ids: Tensor | None = None,
) -> list[Tensor]:
    """Outputs of steps 1..steps at the anchors 0..A-1, A = T - steps; out[k - 1][:, j] predicts token j + k + 1.

    embeddings [B, T, d]: of the window's tokens; hidden [B, T, d]: the target's states there.
    position_ids [B or 1, T] int: rotary position of each token. document_ids [B, T] int: attention stays within equal
    ids; None: each row is one document. Returns `steps` tensors [B, A, d]. With head.recompute, what a step computes
    within itself is not kept for the backward pass but computed again (arXiv 1604.06174).
    """
    anchors = embeddings.shape[1] - steps
    allowed = causal_mask(anchors, None if document_ids is None else document_ids[:, :anchors], hidden.device)
    # Nothing in a step is drawn at random, so no generator's state has to be kept.
    again = partial(checkpoint, _step, use_reentrant=False, preserve_rng_state=False)
    step = again if head.recompute and torch.is_grad_enabled() else _step
    state, outs = hidden[:, :anchors], []
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    for k in range(1, steps + 1):
        positions = position_ids[:, :anchors] + (k - 1)
        state, key, value = step(head, embeddings[:, k : k + anchors], state, positions, keys, values, allowed)
        keys, values = (*keys, key), (*values, value)
        outs.append(state)
    return outs


def _step(
    head: MTPHead, embeddings: Tensor, state: Tensor, position_ids: Tensor,
    keys: tuple[Tensor, ...], values: tuple[Tensor, ...], allowed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One step at all anchors: its output [B, A, d], and the key and value that it adds to those of earlier steps."""
    x = head.combine(embeddings, state, position_ids)
    query, key, value, gate = head.project(x, position_ids)
    attended = _attend(query, (*keys, key), (*values, value), allowed, head.scaling)
    return head.finish(x, attended, gate), key, value


def causal_mask(length: int, document_ids: Tensor | None, device: torch.device) -> Tensor:
    """Which anchors i (last axis) an anchor j may read, as bool [B or 1, 1, length, length]."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    if document_ids is None:
        return mask
    return mask & (document_ids[:, None, :, None] == document_ids[:, None, None, :])


def _attend(
    query: Tensor, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], allowed: Tensor, scaling: float
) -> Tensor:
    """query [B, H, A, D]; one key [B, H_kv, A, D] and value [B, H_kv, A, D_v] per step; allowed [B or 1, 1, A, A]
    -> [B, H, A, D_v]."""
    batch, heads, anchors, size = query.shape
    groups = heads // keys[0].shape[1]
    grouped = query.view(batch, -1, groups, anchors, size) * scaling
    first = grouped.flatten(2, 3) @ keys[0].transpose(-1, -2)
    first = first.view(batch, heads, anchors, anchors).masked_fill(~allowed, float("-inf"))
    own = [(grouped * key.unsqueeze(2)).sum(-1, dtype=torch.float32).view(batch, heads, anchors, 1) for key in keys[1:]]
    weights = torch.cat([first.float(), *own], dim=-1).softmax(-1).to(values[0].dtype)
    weights = weights.view(batch, -1, groups, anchors, anchors + len(own))
    out = (weights[..., :anchors].flatten(2, 3) @ values[0]).view(batch, -1, groups, anchors, values[0].shape[-1])
    for i, value in enumerate(values[1:]):
        out = out + weights[..., anchors + i : anchors + i + 1] * value.unsqueeze(2)
    return out.flatten(1, 2)
