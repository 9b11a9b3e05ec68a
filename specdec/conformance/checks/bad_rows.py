"""Rows that are no distribution."""

import torch
from torch import Tensor

from specdec.conformance.base import DRAFT_ROWS, Implementation, Step, Violation
from specdec.conformance.problems import chosen, law, parameters, require, require_law, require_tokens
from specdec.errors import SpecdecError

ROWS = 6


def bad_target_rows(implementation: Implementation) -> str:
    """A target row of NaN costs its own request its law, and no other request anything.

    Seen: token id V, which crashes at the next step; all of a batch lost. Wanted: an error that names the row, or ids
    inside [0, V) and the neighbours' tokens as they were.
    """
    vocabulary = 40
    g = torch.Generator().manual_seed(4)
    target, head = 2 * torch.randn(2, vocabulary, generator=g), 2 * torch.randn(1, vocabulary, generator=g)
    step = chosen(implementation, target, [int(head[0].argmax())], head, parameters(ROWS))
    good = _seeded_verify(implementation, step)
    said = []
    for what, value in (("NaN", torch.nan), ("NaN in one place", None)):
        broken = step.target.clone()
        if value is None:
            broken[4:6, 3] = torch.nan
        else:
            broken[4:6] = value  # request 2: its draft row and its bonus row
        step.target = broken
        try:
            tokens = _seeded_verify(implementation, step)
        except SpecdecError as error:
            said.append(f"{what}: refused ({error})")
            continue
        require_tokens(tokens[2, :1], vocabulary, f"{what}, the broken request")
        require_tokens(tokens[2][tokens[2] != -1], vocabulary, f"{what}, the broken request")
        others = torch.arange(ROWS) != 2
        changed = int((tokens[others] != good[others]).any(1).sum())
        require(changed == 0, f"{what}: {changed} of {ROWS - 1} neighbours emit other tokens")
        said.append(f"{what}: token {int(tokens[2, 0])}")
    return "; ".join(said)


def _seeded_verify(implementation: Implementation, step: Step) -> Tensor:
    torch.manual_seed(0)  # for implementations that draw from the global generator
    return implementation.verify(step)


def bad_draft_rows(implementation: Implementation) -> str:
    """A draft row of NaN gets its token rejected, and replaced by one from the target.

    Seen: comparisons with NaN that let the token through, whatever the target says of it, and residuals of NaN whose
    argmax is token 0. Wanted: an error that names the row, or the target's law.
    """
    target = torch.tensor([[0.0, 1.0, 0.5, -1.0], [0.0, 0.0, 0.0, 0.0]])
    head = torch.full((1, 4), torch.nan)
    step = chosen(implementation, target, [3], head, parameters(implementation.samples // 2))
    try:
        tokens = implementation.verify(step)[:, 0]
    except SpecdecError as error:
        return f"refused ({error})"
    share = float((tokens == 3).double().mean())
    if share > 0.9:
        raise Violation(f"the draft token is emitted in {share:.0%} of the requests, its probability is 7 %")
    return require_law(tokens, law(target[:1]), "first token behind a draft row of NaN")


CHECKS = (
    ("bad-target-rows", "3", (DRAFT_ROWS,), bad_target_rows),
    ("bad-draft-rows", "4", (DRAFT_ROWS,), bad_draft_rows),
)
