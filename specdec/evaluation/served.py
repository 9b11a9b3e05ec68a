"""The acceptance length that serving will show, predicted from texts that the target itself sampled.

A chain along such a text is not yet what serving does, in two ways.

1. Accepted drafts are no sample of p. Given that the text goes on with x, the draft for x's place was x and accepted
   with probability r = min(1, q(x) / p(x)) (measure.py). So a step at anchor j accepts k drafts or more with
   probability prod_{i<=k} r_{j,i}, given the text. A mean of prod alpha_i takes the prefix for a sample of p.
2. Steps start behind one another. A step that accepts N drafts at anchor j is followed by one at j + N + 1, and the
   first stands on the prompt's last token. With P(N = n) from 1, the chance pi_j that a step starts at j follows by

       pi_{j+n+1} += pi_j P_j(N = n),      n = 0..K

   and with it the length, sum_j pi_j E_j[N + 1] / sum_j pi_j. Nothing is simulated: given the text, this is exact.

In E_j the last draft's r is replaced by alpha, its mean over p at that place: the same expectation, less noise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from specdec.evaluation.measure import Figures
from specdec.training.data import Windows

CONFIDENCE = 1.96  # standard errors on either side: 95 %


@dataclass(frozen=True)
class Served:
    """length: tokens per step; error: half the width of its 95 % confidence interval, over texts.

    observed: share of the drafts at each position that is accepted, of those whose predecessors were. steps: how many.
    """

    length: float
    error: float
    observed: list[float]
    steps: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def predict(figures: Figures, starts: Tensor, greedy: bool = False) -> Served:
    """What serving texts like these will show; greedy: with greedy drafts.

    figures: of windows that hold one text in each row, from continuation_windows. starts int64 [R]: anchor of each
    row's first step. NaN where no text is long enough for a step.
    """
    alpha, kept = (figures.greedy, figures.greedy_kept) if greedy else (figures.alpha, figures.kept)
    shape = (len(starts), int(figures.anchors.max()) + 1 if len(figures) else 0)
    place = (figures.rows, figures.anchors)
    steps = _step_chances(_grid(kept, place, shape), starts)[place]  # [n]
    reached = torch.nn.functional.pad(kept.double().cumprod(-1)[:, :-1], (1, 0), value=1.0)  # [n, K]
    accepted = reached * alpha.double()
    tokens = torch.zeros(len(starts), dtype=torch.float64).index_add(0, figures.rows, steps * (1 + accepted.sum(-1)))
    number = torch.zeros(len(starts), dtype=torch.float64).index_add(0, figures.rows, steps)
    weighted = [(steps[:, None] * v).sum(0) for v in (accepted, reached)]
    length, error = ratio_with_error(tokens, number)
    return Served(length, error, (weighted[0] / weighted[1]).tolist(), float(number.sum()))


def ratio_with_error(parts: Tensor, wholes: Tensor) -> tuple[float, float]:
    """sum(parts) / sum(wholes) of independent pairs, float64 [R], and 1.96 standard errors of it (delta method)."""
    ratio = parts.sum() / wholes.sum()
    spread = ((parts - ratio * wholes) ** 2).sum() * (len(parts) / max(1, len(parts) - 1))
    return float(ratio), float(CONFIDENCE * spread.sqrt() / wholes.sum())


def _grid(values: Tensor, place: tuple[Tensor, Tensor], shape: tuple[int, int]) -> Tensor:
    """[n, K] at their places -> float64 [R, A, K], zeros elsewhere."""
    grid = torch.zeros(*shape, values.shape[-1], dtype=torch.float64)
    grid[place] = values.double()
    return grid


def _step_chances(kept: Tensor, starts: Tensor) -> Tensor:
    """Chance that a step starts at each anchor, float64 [R, A], from the drafts' chances to be kept [R, A, K]."""
    rows, anchors, steps = kept.shape
    chances = torch.zeros(rows, anchors + steps + 1, dtype=torch.float64)
    inside = starts < anchors
    chances[inside.nonzero()[:, 0], starts[inside]] = 1.0
    at_least = torch.nn.functional.pad(kept.cumprod(-1), (1, 0), value=1.0)  # [R, A, K + 1]: n drafts or more
    exactly = at_least - torch.nn.functional.pad(at_least[..., 1:], (0, 1))
    for anchor in range(anchors):
        chances[:, anchor + 1 : anchor + steps + 2] += chances[:, anchor, None] * exactly[:, anchor]
    return chances[:, :anchors]


def continuation_windows(prompts: Sequence[list[int]], outputs: Sequence[list[int]], rows: int) -> list[Windows]:
    """One prompt and its continuation in each row, `rows` at a time; the drafts' tokens are those that count.

    The continuation's first token comes from the prompt's own step, so the first draft stands for its second.
    """
    found = []
    for begin in range(0, len(prompts), rows):
        part = list(zip(prompts[begin : begin + rows], outputs[begin : begin + rows], strict=True))
        length = max(len(prompt) + len(output) for prompt, output in part)
        tokens = torch.zeros(len(part), length, dtype=torch.int64)
        documents = torch.full((len(part), length), -1)  # the padding is a document of its own
        counted = torch.zeros(len(part), length, dtype=torch.bool)
        for row, (prompt, output) in enumerate(part):
            end = len(prompt) + len(output)
            tokens[row, :end] = torch.tensor(prompt + output)
            documents[row, :end] = begin + row
            counted[row, len(prompt) + 1 : end] = True
        found.append(Windows(tokens, documents, counted))
    return found
