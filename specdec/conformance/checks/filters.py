"""The target's filters: exact, on every row, with one rule for ties. Penalties: per draft prefix."""

from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import DRAFT_ROWS, DRAWS_DRAFTS, MIN_P, PENALTIES, TOP_K, TOP_P, Implementation, Step
from specdec.conformance.problems import (
    chosen,
    drawn,
    law,
    parameters,
    require,
    require_law,
    require_tokens,
)

ROW = torch.tensor([1.5, -0.3, 0.9, 0.2, -2.0, 0.6])
HEAD = torch.tensor([[0.1, 0.9, 0.8, -0.6, 0.3, 0.0]])


def target_filters(implementation: Implementation) -> str:
    """Temperature, top-k and top-p of the request shape the target's rows, exactly.

    Seen: vLLM on CPU verifies sampled drafts at temperatures that are uninitialised memory. Wanted: the law of the
    first token, for each filter and for all.
    """
    said = []
    for settings in (
        {"temperature": 0.6},
        {"temperature": 1.4, "top_k": 3},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 1.2, "top_k": 4, "top_p": 0.85},
    ):
        step = drawn(implementation, torch.stack([ROW, ROW]), HEAD, parameters(implementation.samples // 4, **settings))
        said.append(require_law(implementation.verify(step)[:, 0], law(ROW[None], **settings), _named(settings)))
    return "; ".join(said)


def min_p(implementation: Implementation) -> str:
    """min-p is applied to target rows, or refused.

    Seen: SGLang's verify step leaves it out without a word; vLLM V1 refuses it under speculation. Wanted: the law of
    the first token.
    """
    settings = {"temperature": 1.2, "min_p": 0.3}
    step = drawn(implementation, torch.stack([ROW, ROW]), HEAD, parameters(implementation.samples // 2, **settings))
    return require_law(implementation.verify(step)[:, 0], law(ROW[None], **settings), _named(settings))


def bonus_filters(implementation: Implementation) -> str:
    """The bonus row gets the request's filters, as the draft rows do.

    Seen: filters applied to the draft rows only. Wanted: behind a draft that is certain, the bonus token's law.
    """
    settings = {"temperature": 0.8, "top_k": 3, "top_p": 0.9}
    tokens = implementation.verify(behind_a_certain_draft(implementation, ROW, implementation.samples // 2, settings))
    return require_law(tokens[:, 1], law(ROW[None], **settings), f"bonus token, {_named(settings)}")


def peaked_top_p(implementation: Implementation) -> str:
    """Very peaked and very flat rows: the search for the top-p threshold ends, at the right place.

    Seen: a pivot search that does not converge where one token holds nearly all the mass. Wanted: that token, for
    every top-p below its probability; and some token of the row where all are alike.
    """
    vocabulary = 1000
    for peak, top_p in ((14.0, 0.5), (30.0, 0.999), (100.0, 1e-6), (1e4, 0.9999999)):
        row = torch.zeros(2, vocabulary)
        row[:, 77] = peak
        step = chosen(implementation, row, [5], torch.zeros(1, vocabulary), parameters(12, top_p=top_p))
        tokens = implementation.verify(step)[:, 0]
        require((tokens == 77).all(), f"a peak of {peak:g} and top-p {top_p:g} give {tokens.unique().tolist()}")
    for height in (0.0, -1e4):
        row = torch.full((2, vocabulary), height)
        tokens = implementation.verify(chosen(implementation, row, [5], row[:1], parameters(12, top_p=0.9)))
        require_tokens(tokens[:, 0], vocabulary, f"{vocabulary} like tokens of logit {height:g}, top-p 0.9")
    return "four peaks, two flat rows"


def ties(implementation: Implementation) -> str:
    """Ties at the top-k or top-p threshold follow one rule, on draft rows and on bonus rows.

    Wanted: all of the tied tokens are kept (ours), or exactly as many as are needed; the same tokens in both places
    and in every request.
    """
    said = []
    rows = {
        "top_k": (torch.tensor([3.0, 2, 2, 2, 2, 0, 0, 0]), 3),
        "top_p": (torch.tensor([0.4, 0.12, 0.12, 0.12, 0.12, 0.12, 1e-6, 1e-6]).log(), 0.6),
    }
    for name, (row, value) in rows.items():
        settings = {name: value}
        batch = min(400, implementation.samples // 4)
        kept = (row > 0 if name == "top_k" else row > -3).nonzero()[:, 0].tolist()
        never = torch.full((1, 8), -20.0)
        never[0, 7] = 20.0
        first = implementation.verify(
            chosen(implementation, torch.stack([row, row]), [7], never, parameters(batch, **settings))
        )
        bonus = implementation.verify(behind_a_certain_draft(implementation, row, batch, settings))
        drafts, last = set(first[:, 0].unique().tolist()), set(bonus[:, 1].unique().tolist())
        require(drafts == last, f"{name}: tokens {sorted(drafts)} on draft rows, {sorted(last)} on bonus rows")
        require(drafts <= set(kept), f"{name}: tokens {sorted(drafts - set(kept))} are below the threshold")
        require(len(drafts) in (3, len(kept)), f"{name}: {len(drafts)} tokens of the {len(kept)} from the tie on")
        said.append(f"{name}: {'all' if len(drafts) == len(kept) else 'part'} of a tie")
    return "; ".join(said)


def penalties(implementation: Implementation) -> str:
    """Penalties are computed for each draft prefix, not once per step.

    Wanted: with a presence penalty that forbids what was emitted, a draft is not emitted twice in a step, neither as
    the second draft nor as the bonus token.
    """
    batch = 64
    target = torch.zeros(3, 4)
    target[0, 1] = 30.0
    head = target[:2].clone()
    head[1, 1] = 30.0
    step = chosen(implementation, target, [1, 1], head, parameters(batch))
    tokens = implementation.verify(replace(step, presence_penalty=torch.full((batch,), 100.0)))
    require((tokens[:, 0] == 1).all(), "the certain first draft is not accepted")
    twice = int(((tokens == 1).sum(1) > 1).sum())
    require(twice == 0, f"{twice} of {batch} requests emit a forbidden token behind the draft that forbids it")
    return f"{batch} requests"


def behind_a_certain_draft(implementation: Implementation, row: Tensor, batch: int, settings: dict[str, float]) -> Step:
    """A draft of probability 1 in target and head, and then `row` as the bonus row."""
    certain = torch.full((1, row.shape[0]), -50.0)
    certain[0, 0] = 50.0
    return chosen(implementation, torch.cat([certain, row[None]]), [0], certain, parameters(batch, **settings))


def _named(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


CHECKS = (
    ("target-filters", "17", (DRAWS_DRAFTS, DRAFT_ROWS, TOP_K, TOP_P), target_filters),
    ("penalties", "10", (DRAFT_ROWS, PENALTIES), penalties),
    ("min-p", "11", (DRAWS_DRAFTS, DRAFT_ROWS, MIN_P), min_p),
    ("peaked-top-p", "13", (DRAFT_ROWS, TOP_P), peaked_top_p),
    ("bonus-filters", "17", (DRAFT_ROWS, TOP_K, TOP_P), bonus_filters),
    ("ties", "19", (DRAFT_ROWS, TOP_K, TOP_P), ties),
)
