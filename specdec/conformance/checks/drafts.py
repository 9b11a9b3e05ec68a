"""Which drafts there are: none, several, placeholders, drafts without rows; and what the block rule does with them."""

from dataclasses import replace

import torch
from torch import Tensor

from specdec.conformance.base import (
    BLOCK,
    DRAFT_ROWS,
    DRAWS_DRAFTS,
    LOST_ROWS,
    ONE_HOT,
    PLACEHOLDERS,
    RAGGED,
    Implementation,
    Method,
    Step,
)
from specdec.conformance.problems import (
    accepted,
    chain,
    chosen,
    drawn,
    law,
    parameters,
    require,
    require_law,
    require_tokens,
)

METHODS: tuple[Method, ...] = ("token", "block")


def placeholders(implementation: Implementation) -> str:
    """A draft id of -1 is a placeholder: rejected, and replaced by a token from the target.

    Engines with asynchronous scheduling put -1 where a draft is not known. Seen: -1 as an index, or emitted. Wanted:
    the law of the first token; nothing behind it.
    """
    target = chain()[0]
    tokens = implementation.verify(
        chosen(implementation, target[:3], [-1, 2], chain()[1][:2], parameters(implementation.samples // 2))
    )
    behind = (tokens[:, 1:] != -1).any(1)
    require(~behind.any(), f"{int(behind.sum())} requests go on behind a placeholder: {tokens[behind][:1].tolist()}")
    return require_law(tokens[:, 0], law(target[:1]), "first token in the place of a placeholder")


def ragged(implementation: Implementation) -> str:
    """Requests with 0, 1, 2 and 3 drafts share a batch.

    Seen: rows looked up as if all had the same number; requests without drafts left out. Wanted: the law of the first
    token in each group, and one to n + 1 tokens for each request.
    """
    target = torch.tensor([[1.5, 0.0, -1.5], [0.0, 1.5, -1.5], [-1.5, 0.0, 1.5], [0.0, -1.5, 1.5]])
    head = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, -1.0], [0.0, -0.5, 1.0]])
    counts = [0, 3, 1, 2] * (implementation.samples // 4)
    step = ragged_step(implementation, counts, target, head)
    tokens = implementation.verify(step)
    require(tokens.shape == (len(counts), 4), f"the output has shape {list(tokens.shape)}")
    said = []
    for n in range(4):
        some = tokens[torch.tensor(counts) == n]
        require((some[:, n + 1 :] == -1).all(), f"more than {n + 1} tokens for {n} drafts")
        said.append(require_law(some[:, 0], law(target[:1]), f"{n} drafts"))
    return "; ".join(said)


def ragged_step(implementation: Implementation, counts: list[int], target: Tensor, head: Tensor) -> Step:
    """target [4, V], head [3, V]: request b has the first counts[b] of three drafts, drawn from rows of their own."""
    sampling = parameters(len(counts))
    all_three = drawn(implementation, target, head, sampling)
    some = torch.tensor([3 * b + j for b, n in enumerate(counts) for j in range(n)])
    rows = torch.tensor([4 * b + j for b, n in enumerate(counts) for j in range(n + 1)])
    return Step(all_three.target[rows], all_three.drafts[some], counts, sampling)


def emitted_count(implementation: Implementation) -> str:
    """A request emits one to n + 1 tokens of the vocabulary, and then nothing but -1.

    Wanted for steps of 0 to 4 drafts, sampled, greedy and mixed, and both rules where there are two.
    """
    vocabulary, batch, steps = 50, 8, 0
    for n in range(5):
        if n == 0 and RAGGED in implementation.lacks:
            continue
        g = torch.Generator().manual_seed(n)
        target = 2 * torch.randn(n + 1, vocabulary, generator=g)
        head = target[:n] + torch.randn(n, vocabulary, generator=g)
        sampling = parameters(batch)
        for temperature in (0.0, 1.0, None):
            sampling.temperature = (
                torch.full((batch,), temperature) if temperature is not None else torch.arange(batch) % 2.0
            )
            for method in METHODS[: 1 if BLOCK in implementation.lacks else 2]:
                ids = torch.randint(0, vocabulary, (n,), generator=g) if n % 2 else head.argmax(1)
                step = chosen(implementation, target, ids.tolist(), head, sampling, method)
                _require_shape(implementation.verify(step), batch, n, vocabulary)
                steps += 1
    return f"{steps} steps of {batch} requests"


def _require_shape(tokens: Tensor, batch: int, n: int, vocabulary: int) -> None:
    require(tokens.shape == (batch, n + 1), f"{n} drafts: the output has shape {list(tokens.shape)}")
    for row in tokens:
        count = int((row != -1).sum())
        require(1 <= count <= n + 1 and (row[count:] == -1).all(), f"{n} drafts: a request's row is {row.tolist()}")
        require_tokens(row[:count], vocabulary, f"{n} drafts")


def lost_rows(implementation: Implementation) -> str:
    """A request whose draft rows are gone costs no other request its acceptance.

    vLLM V1 keeps rows by batch position: a request that was in the last batch and not in this one makes it verify the
    *whole* batch as one-hot. That is exact (x is kept with p(x), whatever sampled it), and most drafts are rejected.
    Wanted: drafts sampled from the target's own row stay accepted in the other requests.
    """
    rows = torch.randn(3, 60, generator=torch.Generator().manual_seed(8))
    step = drawn(implementation, rows, rows[:2], parameters(40))
    whole = float(accepted(implementation.verify(step)).double().mean())
    kept = float(accepted(implementation.verify(replace(step, lost=(0,))))[1:].double().mean())
    said = f"{kept:.2f} of 2 drafts accepted beside a request without rows, {whole:.2f} otherwise"
    require(kept > 0.95 * whole and whole > 1.9, said)
    return said


def block_residual(implementation: Implementation) -> str:
    """The block rule recovers from max(w P - Q, 0), and its output follows the target.

    Seen: the token rule's residual max(P - Q, 0), which biases the token behind an accepted draft. Wanted: the joint
    law of the first two tokens, and the law of the one that is recovered behind each accepted draft.
    """
    target = torch.tensor([[0.3, 1.0, 1.5], [0.7, -1.5, 1.4], [-0.7, 1.1, 0.4]])
    head = torch.tensor([[-0.7, -2.5, 2.5], [-2.4, 2.1, 1.5]])
    batch, size = implementation.samples, target.shape[1]
    tokens = implementation.verify(drawn(implementation, target, head, parameters(batch), "block")).long()
    require_tokens(tokens[:, 0], size, "first tokens")
    said, p, q = [], law(target), law(head)
    behind_one = (accepted(tokens) == 1).nonzero()[:, 0]
    for x in range(size):
        rest = (min(1.0, float(p[0, x] / q[0, x])) * p[1] - q[1]).clamp(min=0)
        some = tokens[behind_one, 1][tokens[behind_one, 0] == x]
        if len(some):
            said.append(require_law(some, rest / rest.sum(), f"recovered behind draft {x}"))
    g = torch.Generator().manual_seed(9)
    second = torch.multinomial(p[1], batch, replacement=True, generator=g)
    second = torch.where(tokens[:, 1] < 0, second, tokens[:, 1])
    said.append(require_law(tokens[:, 0] * size + second, p[0][:, None] * p[1], "joint law of two tokens"))
    return "; ".join(said)


def block_one_hot(implementation: Implementation) -> str:
    """With one-hot drafts the block rule accepts as many as the token rule.

    Block verification of point masses has the token rule's law, where its residual masses are right; without them it
    accepts all drafts or none. Wanted: the exact mean number of accepted drafts under both rules, to 5 standard errors,
    and the target's law.
    """
    n, batch = 3, implementation.samples // 2
    target = torch.tensor([1.4, 0.0, 0.3, -0.5]).repeat(n + 1, 1)
    reach = law(target[:1])[0, 0] ** torch.arange(1, n + 1)
    mean = float(reach.sum())
    variance = float(((2 * torch.arange(1, n + 1) - 1) * reach).sum()) - mean**2
    said = [f"{mean:.3f} drafts accepted in expectation"]
    for method in METHODS:
        tokens = implementation.verify(chosen(implementation, target, [0] * n, None, parameters(batch), method))
        seen = float(accepted(tokens).double().mean())
        said.append(f"{seen:.3f} by the {method} rule")
        require(abs(seen - mean) < 5 * (variance / batch) ** 0.5, ", ".join(said))
        require_law(tokens[:, 0], law(target[:1]), f"first token, {method} rule")
    return ", ".join(said)


CHECKS = (
    ("placeholders", "14", (DRAFT_ROWS, PLACEHOLDERS), placeholders),
    ("ragged", "14", (DRAWS_DRAFTS, DRAFT_ROWS, RAGGED), ragged),
    ("emitted-count", "16", (DRAFT_ROWS,), emitted_count),
    ("lost-rows", "18", (DRAWS_DRAFTS, DRAFT_ROWS, LOST_ROWS), lost_rows),
    ("block-residual", "15", (DRAWS_DRAFTS, DRAFT_ROWS, BLOCK), block_residual),
    ("block-one-hot", "15", (ONE_HOT, BLOCK), block_one_hot),
)
