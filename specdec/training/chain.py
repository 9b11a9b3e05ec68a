"""Draft and teacher side by side for every anchor of a batch of windows: what losses and evaluation both read."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

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


class ChainStates(NamedTuple):
    """The same chains before the LM head, whose logits may be too many to hold.

    draft_hidden [n, K, d] of the head; target_hidden [M, d] at all positions; target_rows [n, K] int64, which of these
    each step is compared with; labels [n, K] as above.
    """

    draft_hidden: Tensor
    target_hidden: Tensor
    target_rows: Tensor
    labels: Tensor

    def logits(self, target: Target, autocast: bool) -> Chains:
        """All logits, the target's without gradient."""
        teacher, which = self.teacher(target, autocast)
        return Chains(self.draft_logits(target, autocast), teacher[which], self.labels)

    def draft_logits(self, target: Target, autocast: bool) -> Tensor:
        """[n, K, V]."""
        with torch.autocast(self.draft_hidden.device.type, torch.bfloat16, enabled=autocast):
            return target.logits(self.draft_hidden)

    @torch.no_grad()
    def teacher(self, target: Target, autocast: bool) -> tuple[Tensor, Tensor]:
        """The target's logits [U, V] at each position that some step is compared with, and which one: int64 [n, K]."""
        used, which = self.target_rows.unique(return_inverse=True)
        with torch.autocast(self.draft_hidden.device.type, torch.bfloat16, enabled=autocast):
            return target.logits(self.target_hidden[used]), which

    def split(self, chains: int) -> Iterator["ChainStates"]:
        """At most so many chains at a time."""
        for start in range(0, len(self.labels), chains):
            part = slice(start, start + chains)
            yield ChainStates(
                self.draft_hidden[part], self.target_hidden, self.target_rows[part], self.labels[part]
            )  # fmt: skip


def chain_anchors(windows: Windows, steps: int, labelled: bool = False) -> Tensor:
    """Where a chain starts, bool [B, T - steps]: as `whole_chains`, without the one that has no label in the window."""
    valid = windows.whole_chains(steps, labelled)
    valid[:, -1] = False
    return valid


def run_states(
    head: nn.Module,
    target: Target,
    windows: Windows,
    hidden: Tensor,
    steps: int,
    autocast: bool,
    labelled: bool = False,
) -> ChainStates:
    """Runs the head (an MTPHead or what wraps one) on windows whose states (Target.hidden) are hidden [B, T, d].

    Chains that leave their document are left out, as are those that predict tokens that do not count, and the one whose
    last step predicts beyond the window. labelled: the labels are used, so they must belong to the document too.
    """
    device = hidden.device
    documents = None if windows.one_document_each() else windows.documents.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        states = hidden if hidden.dtype == torch.bfloat16 and autocast else hidden.float()
        embeddings = target.embed(windows.tokens)
        outs = head(embeddings, states, steps, windows.position_ids().to(device), documents)
    valid = chain_anchors(windows, steps, labelled)
    rows, anchors = valid.nonzero(as_tuple=True)
    index = anchors[:, None] + torch.arange(1, steps + 1)  # [n, K]: j + k
    kept = torch.stack([out[valid.to(device)] for out in outs], dim=1)
    labels = windows.tokens[rows[:, None], index + 1]
    target_rows = rows[:, None] * hidden.shape[1] + index
    return ChainStates(kept, target.normed(hidden).flatten(0, 1), target_rows.to(device), labels.to(device))


def run_chains(
    head: nn.Module,
    target: Target,
    windows: Windows,
    hidden: Tensor,
    steps: int,
    autocast: bool,
    labelled: bool = False,
) -> Chains:
    """`run_states` with all logits."""
    return run_states(head, target, windows, hidden, steps, autocast, labelled).logits(target, autocast)
