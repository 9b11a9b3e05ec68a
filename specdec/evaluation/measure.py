"""What a head's chains along a text would yield under each setting: the target runs once, each head once.

Two ways to verify (Bebop, arXiv 2606.12370): rejection sampling accepts a draft drawn from q with probability
alpha = sum(min(p, q)); target-only accepts the greedy draft with p(argmax q).

Of the text's own token x, where the target itself sampled it, more can be said: given that x came out, the draft was
accepted with probability min(1, q(x) / p(x)), since min(p, q)(x) is the chance that x came out as an accepted draft and
p(x) that it came out at all (lossless). Under target-only verification: with 1 where x = argmax q, else 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from specdec.drafting import NEUTRAL, Calibration
from specdec.evaluation.filters import Filters
from specdec.heads.module import MTPHead
from specdec.training.chain import ChainStates, run_states
from specdec.training.data import Windows
from specdec.training.target import Target

LOGITS_AT_ONCE = 2**26  # of one side: 256 MiB in float32


@dataclass(frozen=True)
class Figures:
    """n chains of K steps under one setting, on the CPU. All [n, K] float32, but for the last three.

    alpha, greedy: acceptance of a sampled, of a greedy draft. kept, greedy_kept: the same given the text's own token.
    entropy: of the setting's p, nats; entropy_at_1: of the target's distribution at temperature 1, unfiltered.
    rows, anchors, documents int64 [n]: where the chain starts: row of the windows, position in it, document's number.
    """

    alpha: Tensor
    greedy: Tensor
    kept: Tensor
    greedy_kept: Tensor
    entropy: Tensor
    entropy_at_1: Tensor
    rows: Tensor
    anchors: Tensor
    documents: Tensor

    def __len__(self) -> int:
        return len(self.alpha)

    def only(self, which: Tensor) -> "Figures":
        """The chains where `which`, bool [n], is true."""
        return Figures(*(getattr(self, field.name)[which] for field in fields(self)))


def measure(
    heads: Sequence[MTPHead],
    target: Target,
    windows: Sequence[Windows],
    steps: int,
    settings: Sequence[Filters],
    autocast: bool = True,
    progress: Callable[[int], None] = lambda windows_done: None,
    calibrations: Sequence[Calibration] | None = None,
) -> list[list[Figures]]:
    """The figures of `steps` drafted tokens at every anchor of the windows: [head][setting].

    calibrations: draft scales of each head; None: all are 1.
    """
    found: list[list[list[Figures]]] = [[[] for _ in settings] for _ in heads]
    rows = 0
    drafting = list(zip(heads, calibrations or [NEUTRAL] * len(heads), strict=True))
    for batch in windows:
        hidden = target.hidden(batch)
        for (head, scales), by_setting in zip(drafting, found, strict=True):
            for part in _parts(head, target, batch, hidden, steps, settings, scales, autocast, rows):
                for figures, parts in zip(part, by_setting, strict=True):
                    parts.append(figures)
        rows += len(batch.tokens)
        progress(rows)
    return [[_joined(parts) for parts in by_setting] for by_setting in found]


@torch.no_grad()
def _parts(
    head: MTPHead, target: Target, batch: Windows, hidden: Tensor, steps: int, settings: Sequence[Filters],
    scales: Calibration, autocast: bool, first_row: int,
) -> Iterator[list[Figures]]:  # fmt: skip
    """Figures by setting of one batch, some chains at a time."""
    states = run_states(head, target, batch, hidden, steps, autocast)
    at_once = max(1, LOGITS_AT_ONCE // (steps * target.weight.shape[0]))
    for part in states.split(at_once) if len(states.labels) else [states]:
        start = (part.target_rows[:, 0] - 1).cpu()  # the first step is compared with the position behind its anchor
        rows, anchors = start // hidden.shape[1], start % hidden.shape[1]
        place = (rows + first_row, anchors, batch.documents[rows, anchors])
        values = [[v.float().cpu() for v in under] for under in _values(part, target, settings, scales, autocast)]
        yield [Figures(*[*under, *place]) for under in values]


def _values(
    part: ChainStates, target: Target, settings: Sequence[Filters], scales: Calibration, autocast: bool
) -> Iterator[tuple[Tensor, ...]]:
    """The first six of Figures, by setting."""
    teacher, which = part.teacher(target, autocast)
    drafts = part.draft_logits(target, autocast)
    at_1 = _entropy(teacher.float().softmax(-1))[which]
    token = part.labels[..., None]
    for filters in settings:
        of_target = filters.probabilities(teacher)
        entropy = _entropy(of_target)[which]
        scale = scales.scale(filters.temperature, filters.top_k, filters.top_p, filters.min_p)
        p, q = of_target[which], filters.probabilities(drafts if scale == 1 else scale * drafts.float())
        best = q.argmax(-1, keepdim=True)
        alpha = torch.minimum(p, q).sum(-1).clamp(max=1.0)
        # A token that rounding has put below the filter counts as the least probable one: kept wherever q has it.
        ratio = (q.gather(-1, token) / p.gather(-1, token).clamp(min=torch.finfo(p.dtype).tiny)).clamp(max=1.0)
        yield alpha, p.gather(-1, best)[..., 0], ratio[..., 0], (best == token)[..., 0], entropy, at_1


def _entropy(p: Tensor) -> Tensor:
    """Nats [...] of distributions [..., V]."""
    return torch.special.entr(p).sum(-1)


def _joined(parts: list[Figures]) -> Figures:
    return Figures(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Figures)))
