"""Where random numbers come from: streams kept apart, whole tails, exact zeros, seeds."""

from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import (
    BLOCK,
    DRAFT_ROWS,
    DRAWS_DRAFTS,
    MANY_DRAWS,
    SEEDS,
    ZERO_UNIFORM,
    Implementation,
    Step,
    Violation,
)
from specdec.conformance.problems import (
    chain_law,
    chosen,
    drawn,
    generate,
    interleaved,
    parameters,
    place,
    require,
    require_law,
    require_tokens,
)
from specdec.sampling import SamplingBatch


def one_stream(implementation: Implementation) -> str:
    """Drafting, acceptance and recovery draw from streams of their own.

    Shared noise makes the accepted drafts those that were likely to be drawn, and the output biased (seen: chi-square
    1585 where 70 was expected). Wanted: the joint law of two tokens, over one or two steps, is the target's.
    """
    tokens = generate(implementation, parameters(implementation.samples), n=2, length=2)
    return require_law(place(tokens), chain_law(2), "joint law of two tokens")


def block_steps(implementation: Implementation) -> str:
    """Under the block rule the next step draws other numbers than those this step has looked at.

    The block rule looks at drafts and random numbers behind the last accepted draft. Where they are named by the
    token's position alone, the next step meets them again: each step is exact, and their sequence biased. Wanted: the
    joint law of two tokens, over one or two steps.
    """
    tokens = generate(implementation, parameters(implementation.samples), n=2, length=2, method="block")
    return require_law(place(tokens), chain_law(2), "joint law of two tokens")


def tails(implementation: Implementation) -> str:
    """Tokens of tiny probability are drawn as often as they should be.

    A Gumbel or exponential number made of a 24-bit float is bounded: tokens a factor e^17 below the largest never win
    (found in several samplers). Wanted: a tail of 2^18 tokens of probability e^-17.8 each gets its share, 0.49 %. The
    number of tail tokens is Poisson.
    """
    vocabulary, requests, gap = 2**18, 5120, 17.8
    row = torch.full((vocabulary,), -gap)
    row[7] = 0.0
    share = (vocabulary - 1) * torch.tensor(-gap).exp().item()
    share /= 1 + share
    seen = 0
    step = chosen(implementation, row[None], [], None, parameters(64))
    for first in range(0, requests, 64):
        sampling = replace(step.sampling, seed=step.sampling.seed + 10**6 * first)
        tokens = implementation.verify(replace(step, sampling=sampling))[:, 0]
        require_tokens(tokens, vocabulary, "bonus tokens")
        seen += int((tokens != 7).sum())
    expected = requests * share
    said = f"{seen} tail tokens of {requests}, {expected:.1f} expected"
    require(poisson_tail(seen, expected) > 1e-6, said)
    return said


def poisson_tail(seen: int, expected: float) -> float:
    """P(at most `seen`) or P(at least `seen`), the smaller."""
    mean = torch.tensor(expected, dtype=torch.float64)
    at_most = float(torch.special.gammaincc(torch.tensor(seen + 1.0, dtype=torch.float64), mean))
    at_least = float(torch.special.gammainc(torch.tensor(float(max(seen, 1)), dtype=torch.float64), mean))
    return min(at_most, at_least) if seen else at_most


def zero_uniform(implementation: Implementation) -> str:
    """A uniform number of exactly 0 accepts no token of probability 0.

    `u <= p / q` does (vLLM V1 has >= with the sides exchanged); float32 uniforms are 0 once in 2^24 draws. Wanted: `<`.
    """
    target = torch.tensor([[1.0, 0.5, 0.0, -torch.inf], [0.0, 0.0, 0.0, -torch.inf]])
    head = torch.zeros(1, 4)
    step = chosen(implementation, target, [3], head, parameters(16))
    tokens = implementation.verify(replace(step, seeded=torch.zeros(16, dtype=torch.bool), zero_uniform=True))
    wrong = int((tokens == 3).any(1).sum())
    require(wrong == 0, f"{wrong} of 16 requests emit a token of probability 0")
    return "a draft of probability 0 is rejected at u = 0"


def impossible_drafts(implementation: Implementation) -> str:
    """A draft token that neither target nor head can produce is rejected.

    `u q <= p` holds for p = q = 0, and p / q is NaN. Such drafts come from filters, grammars and padding. Wanted: the
    token is replaced, by one from the target.
    """
    batch = implementation.samples // 2
    target = torch.tensor([[1.0, 0.5, 0.0, -torch.inf], [0.0, 0.0, 0.0, -torch.inf]])
    head = torch.tensor([[0.0, 1.0, 0.0, -torch.inf]])
    tokens = implementation.verify(chosen(implementation, target, [3], head, parameters(batch)))
    wrong = int((tokens == 3).any(1).sum())
    require(wrong == 0, f"{wrong} of {batch} requests emit a token of probability 0")
    return f"rejected in {batch} requests"


def same_again(implementation: Implementation, sampling: SamplingBatch, seeded: Tensor, rows: Tensor) -> Tensor:
    """A step of two drafts over the same rows for each request: [B, 3]."""
    return implementation.verify(drawn(implementation, rows, rows[:2].flip(0), sampling, seeded=seeded))


def seeds(implementation: Implementation) -> str:
    """A request's seed decides its tokens, and its alone.

    Seen: row 0's seed used for the whole batch; drafts drawn without the seed; requests without a seed sharing one
    stream. Wanted: equal seeds repeat, different seeds differ, requests without a seed differ from one another.
    """
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    known, unknown = torch.ones(40, dtype=torch.bool), torch.zeros(40, dtype=torch.bool)
    different = parameters(40)
    first = same_again(implementation, different, known, rows)
    distinct = len(first[:, 0].unique())
    require(distinct > 30, f"40 seeds give {distinct} different tokens over 1000 like ones")
    alike = same_again(implementation, replace(different, seed=torch.full((40,), 5)), known, rows)
    require(len(alike.unique(dim=0)) == 1, f"one seed gives {len(alike.unique(dim=0))} different outputs")
    repeated = (same_again(implementation, different, known, rows) == first).all(1)
    require(repeated.all(), f"{int((~repeated).sum())} of 40 seeded requests emit other tokens when run again")
    distinct = len(same_again(implementation, different, unknown, rows)[:, 0].unique())
    require(distinct > 30, f"40 requests without a seed give {distinct} different tokens")
    return "40 seeded requests repeat; 40 others differ"


def seed_neighbours(implementation: Implementation) -> str:
    """A seeded request emits the same tokens whatever shares its batch.

    Seen: the noise of seeded and unseeded requests drawn from one stream in batch order, so that a neighbour without a
    seed, or a neighbour less, shifts it. Wanted: no change.
    """
    batch = 24
    target = torch.randn(batch, 3, 1000, generator=torch.Generator().manual_seed(1))
    heads = target[:, :2] + 0.8 * torch.randn(batch, 2, 1000, generator=torch.Generator().manual_seed(2))
    sampling, known = parameters(batch), torch.ones(batch, dtype=torch.bool)
    own = [implementation.keep(heads[:, j].argmax(1).int(), heads[:, j], sampling) for j in range(2)]
    drafts = interleaved(own)

    def emitted(which: Tensor, seeded: Tensor) -> Tensor:
        some = (which[:, None] * 2 + torch.arange(2)).flatten()
        rows = target[which].flatten(0, 1)
        return implementation.verify(Step(rows, drafts[some], [2] * len(which), sampling.rows(which), seeded))

    everyone, odd = torch.arange(batch), torch.arange(1, batch, 2)
    before = emitted(everyone, known)[odd]
    mixed = emitted(everyone, everyone % 2 == 1)[odd]
    fewer = emitted(odd, known[odd])
    for name, after in (("neighbours lose their seeds", mixed), ("neighbours leave", fewer)):
        changed = int((before != after).any(1).sum())
        if changed:
            raise Violation(f"{changed} of {len(odd)} seeded requests emit other tokens when {name}")
    return f"{len(odd)} requests, unchanged"


CHECKS = (
    ("one-stream", "1", (DRAWS_DRAFTS, DRAFT_ROWS), one_stream),
    ("tails", "2", (MANY_DRAWS,), tails),
    ("zero-uniform", "5", (DRAFT_ROWS, ZERO_UNIFORM), zero_uniform),
    ("impossible-drafts", "5", (DRAFT_ROWS,), impossible_drafts),
    ("seeds", "6", (DRAWS_DRAFTS, DRAFT_ROWS, SEEDS), seeds),
    ("seed-neighbours", "7", (DRAFT_ROWS, SEEDS), seed_neighbours),
    ("block-steps", "15", (DRAWS_DRAFTS, DRAFT_ROWS, BLOCK), block_steps),
)
