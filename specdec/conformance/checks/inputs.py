"""What goes in: layouts, sizes, dtypes, and that it comes out unchanged."""

from dataclasses import replace

import torch

from specdec.conformance.base import DRAFT_ROWS, DRAWS_DRAFTS, MANY_DRAWS, TOP_K, TOP_P, Implementation, Step, Violation
from specdec.conformance.problems import (
    chosen,
    drawn,
    law,
    parameters,
    require,
    require_law,
)

ODD = (1, 7, 1023, 1025, 8193, 128_001, 151_936)


def unchanged(implementation: Implementation) -> str:
    """Target rows, draft rows and parameters are what they were, after the step.

    Seen: temperature and filters applied in place, and the rows read again for logprobs. Wanted: no write.
    """
    g = torch.Generator().manual_seed(5)
    target, head = torch.randn(3, 60, generator=g), torch.randn(2, 60, generator=g)
    settings = {"temperature": 0.7}
    settings |= {} if TOP_K in implementation.lacks else {"top_k": 20}
    settings |= {} if TOP_P in implementation.lacks else {"top_p": 0.9}
    step = chosen(implementation, target, [1, 2], head, parameters(8, **settings))
    things = {"target rows": step.target, "draft ids": step.drafts.token_ids, "seeds": step.sampling.seed}
    things |= {} if step.drafts.rows is None else {"draft rows": step.drafts.rows}
    things |= {"temperatures": step.sampling.temperature, "top-k": step.sampling.top_k, "top-p": step.sampling.top_p}
    before = {name: thing.clone() for name, thing in things.items()}
    implementation.verify(step)
    written = [name for name, thing in things.items() if not torch.equal(thing, before[name])]
    require(not written, f"written to: {', '.join(written)}")
    return "nothing written to"


def draft_rounding(implementation: Implementation) -> str:
    """The q of the ratio is the q that sampled the draft, to the last bit.

    Seen: drafts sampled from logits rounded to bf16, ratios computed from the float32 ones. Wanted: the target's law,
    for logits so large that rounding to bf16 changes the distribution.
    """
    target = torch.tensor([[0.9, -0.8, -0.7, -0.8], [0.0, 0.0, 0.0, 0.0]])
    head = 400 + target[:1]  # bf16 has steps of 2 here: all alike
    said = []
    for dtype in (torch.float32, torch.bfloat16):
        step = drawn(implementation, target, head.to(dtype), parameters(implementation.samples // 2))
        tokens = implementation.verify(step)[:, 0]
        said.append(require_law(tokens, law(target[:1]), f"first token, {str(dtype)[6:]} draft logits"))
    return "; ".join(said)


def layouts(implementation: Implementation) -> str:
    """Rows of a wider matrix, and columns that are not adjacent, are read where they are; or refused.

    A vocabulary of 151,936 is padded to 152,064 by the model's head, and the logits are a view of it. Seen: strides
    taken for the width. Wanted: the same tokens as from a contiguous copy; an error is no failure.
    """
    vocabulary = 130
    g = torch.Generator().manual_seed(6)
    target, head = torch.randn(3, vocabulary, generator=g), torch.randn(2, vocabulary, generator=g)
    step = chosen(implementation, target, [3, 9], head, parameters(16))
    torch.manual_seed(0)
    plain = implementation.verify(step)
    wide = torch.full((step.target.shape[0], vocabulary + 14), 50.0)
    wide[:, :vocabulary] = step.target
    columns = step.target.T.contiguous().T
    said = []
    for what, rows in (("rows of a wider matrix", wide[:, :vocabulary]), ("strided columns", columns)):
        torch.manual_seed(0)
        try:
            tokens = implementation.verify(replace(step, target=rows))
        except (ValueError, AssertionError) as error:
            said.append(f"{what}: refused ({type(error).__name__})")
            continue
        changed = int((tokens != plain).any(1).sum())
        require(changed == 0, f"{what}: {changed} of 16 requests emit other tokens")
        said.append(f"{what}: read")
    return "; ".join(said)


def vocabularies(implementation: Implementation) -> str:
    """Vocabularies that are no multiple of anything.

    Seen: the last block read beyond the row or left out; ids beyond V. Wanted: where only the last two tokens have
    mass, they come out, from draft rows and bonus rows, for V = 1, 7, 1023 .. 128,001 and, where it is fast, 151,936.
    """
    sizes = ODD[:-1] if MANY_DRAWS in implementation.lacks else ODD
    for vocabulary in sizes:
        mass = [vocabulary - 1] if vocabulary == 1 else [vocabulary - 2, vocabulary - 1]
        target = torch.full((2, vocabulary), -torch.inf)
        target[:, mass] = 0.0
        batch = 2 if vocabulary > 10_000 else 16
        step = chosen(implementation, target, [mass[-1]], target[:1], parameters(batch))
        tokens = implementation.verify(step)
        seen = set(tokens.unique().tolist()) - {-1}
        if not seen <= set(mass) or (batch > 2 and seen != set(mass)):
            raise Violation(f"V = {vocabulary}: tokens {sorted(seen)} where only {mass} have mass")
        full = implementation.verify(
            Step(target, step.drafts[torch.arange(1)], [1], step.sampling.rows(torch.arange(1)))
        )
        require(full.shape == (1, 2) and int(full[0, 1]) in mass, f"V = {vocabulary}: no bonus token: {full.tolist()}")
    return f"V = {', '.join(f'{v:,}' for v in sizes)}"


CHECKS = (
    ("unchanged", "8", (DRAFT_ROWS,), unchanged),
    ("draft-rounding", "9", (DRAWS_DRAFTS, DRAFT_ROWS), draft_rounding),
    ("layouts", "12", (DRAFT_ROWS,), layouts),
    ("vocabularies", "12", (DRAFT_ROWS,), vocabularies),
)
