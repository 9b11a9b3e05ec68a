"""Draft and teacher side by side for every anchor of a batch of windows: what losses and evaluation both read."""

from typing import NamedTuple

import torch
from torch import Tensor

from specdec.heads.module import MTPHead
from specdec.heads.unroll import unroll
from specdec.training.data import Windows
from specdec.training.target import Target


class Chains(NamedTuple):
    """n chains of K steps; step k of the chain at anchor j stands for the token at position j + k + 1.

    draft_logits [n, K, V] of the head; target_logits [n, K, V] of the target at position j + k; labels [n, K] int64,
    the text's own tokens there.
    """

    draft_logits: Tensor
    target_logits: Tensor
    labels: Tensor


def run_chains(
    head: MTPHead,
    target: Target,
    windows: Windows,
    hidden: Tensor,
    steps: int,
    autocast: bool,
    labelled: bool = False,
) -> Chains:
    """Runs the head on windows whose final-norm states are hidden [B, T, d].

    Chains that leave their document are left out, as are those that predict tokens that do not count, and the one whose
    last step predicts beyond the window. labelled: the labels are used, so they must belong to the document too.
    """
    device = hidden.device
    documents = None if windows.one_document_each() else windows.documents.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        states = hidden if hidden.dtype == torch.bfloat16 and autocast else hidden.float()
        embeddings = target.embed(windows.tokens)
        outs = unroll(head, embeddings, states, steps, windows.position_ids().to(device), documents)
        valid = windows.whole_chains(steps, labelled)
        valid[:, -1] = False  # its last step has no label in the window
        rows, anchors = valid.nonzero(as_tuple=True)
        index = anchors[:, None] + torch.arange(1, steps + 1)  # [n, K]: j + k
        with torch.no_grad():
            teacher = target.logits(hidden)[rows[:, None].to(device), index.to(device)]
        kept = torch.stack([out[valid.to(device)] for out in outs], dim=1)
        draft = target.logits(kept)
    labels = windows.tokens[rows[:, None], index + 1].to(device)
    return Chains(draft, teacher, labels)
