"""What an SAE's features stand for: where in a text each is most active, and which tokens its direction speaks for."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.steering.sae import SAE
from specdec.training.data import Windows
from specdec.training.target import Target

BEFORE, AFTER = 16, 6  # tokens of a snippet around the one that is marked
SINKS = 10.0  # streams longer than so many medians are attention sinks, not text: left out, as in training


@dataclass(frozen=True)
class Snippet:
    """A place where the feature is active: the text before the token, its own, and behind it."""

    before: str
    token: str
    after: str
    activation: float


@dataclass(frozen=True)
class Feature:
    """density: share of tokens on which it is active. tokens: those it is most active on, the most common first.

    agreement: share of the snippets that have the first of these. promotes: tokens whose logits its decoder row raises
    most by itself, through the final norm's weights (what later layers make of it is not in this).
    """

    id: int
    density: float
    highest: float
    tokens: list[str]
    agreement: float
    promotes: list[str]
    snippets: list[Snippet]


class Peaks:
    """The `count` windows in which each feature is most active. values, windows, places [count, s]."""

    def __init__(self, num_features: int, count: int, device: torch.device) -> None:
        self.values = torch.zeros(count, num_features, device=device)
        self.windows = torch.zeros(count, num_features, dtype=torch.int64, device=device)
        self.places = torch.zeros_like(self.windows)
        self.active = torch.zeros(num_features, dtype=torch.int64, device=device)
        self.tokens = 0

    def add(self, f: Tensor, window: int) -> None:
        """f [T, s]: activations on the tokens of one window. One peak in each, or one text would fill the list."""
        self.tokens += len(f)
        self.active += (f > 0).sum(dim=0)
        values, places = f.max(dim=0)
        kept = torch.cat([self.values, values[None]]).topk(len(self.values), dim=0)
        self.values = kept.values
        self.windows = torch.cat([self.windows, torch.full_like(self.windows[:1], window)]).gather(0, kept.indices)
        self.places = torch.cat([self.places, places[None]]).gather(0, kept.indices)


@torch.no_grad()
def find_peaks(
    sae: SAE, target: Target, windows: Sequence[Windows], count: int, progress: Callable[[int], None] = lambda n: None
) -> Peaks:
    """progress is told how many windows are done. Windows are counted through all of `windows`, one row each."""
    peaks, done = Peaks(sae.num_features, count, sae.W_enc.device), 0
    for part in windows:
        x = target.hidden(part, sae.layer).float()
        norms = x.norm(dim=-1)
        usual = norms <= SINKS * norms.median()
        for row, counts in zip(x, usual, strict=True):
            peaks.add(sae.encode(row) * counts[:, None], done)
            done += 1
        progress(done)
    return peaks


def list_features(
    sae: SAE, target: Target, windows: Sequence[Windows], peaks: Peaks, ids: Sequence[int]
) -> list[Feature]:
    """These features in words."""
    rows = [(part.tokens[i], part.documents[i]) for part in windows for i in range(len(part.tokens))]
    promoted = _promoted(sae, target, ids)
    return [_feature(target, rows, peaks, j, names) for j, names in zip(ids, promoted, strict=True)]


ORDERS: dict[str, Callable[[Feature], tuple[float, ...]]] = {
    "density": lambda f: (-f.density,),
    "highest": lambda f: (-f.highest,),
    "one-token": lambda f: (-f.agreement, -f.density),  # those that are active on one token first
    "many-tokens": lambda f: (f.agreement, -f.density),  # those that stand for more than a token
}


def ordered(features: Sequence[Feature], order: str) -> list[Feature]:
    """SpecdecError: an order of another name."""
    if order not in ORDERS:
        raise SpecdecError(f"--order {order!r} is unknown: use one of {', '.join(ORDERS)}")
    return sorted(features, key=ORDERS[order])


def _feature(
    target: Target, rows: Sequence[tuple[Tensor, Tensor]], peaks: Peaks, j: int, promotes: list[str]
) -> Feature:
    snippets = [
        _snippet(target, rows[window], place, value)
        for value, window, place in zip(
            peaks.values[:, j].tolist(), peaks.windows[:, j].tolist(), peaks.places[:, j].tolist(), strict=True
        )
        if value > 0
    ]
    common = Counter(s.token for s in snippets).most_common()
    return Feature(
        j, peaks.active[j].item() / peaks.tokens, peaks.values[0, j].item(), [token for token, _ in common],
        common[0][1] / len(snippets) if common else 0.0, promotes, snippets,
    )  # fmt: skip


def _snippet(target: Target, row: tuple[Tensor, Tensor], place: int, value: float) -> Snippet:
    """Text of the token's own document only."""
    tokens, documents = row
    same = (documents == documents[place]).nonzero()[:, 0]
    first, last = max(int(same[0]), place - BEFORE), min(int(same[-1]), place + AFTER)

    def text(part: Tensor) -> str:
        return str(target.tokenizer.decode(part.tolist()))

    return Snippet(
        text(tokens[first:place]), text(tokens[place : place + 1]), text(tokens[place + 1 : last + 1]), value
    )


@torch.no_grad()
def _promoted(sae: SAE, target: Target, ids: Sequence[int], count: int = 8) -> list[list[str]]:
    rows = sae.W_dec[list(ids)] * target.model.model.norm.weight.float()
    best = (rows @ target.weight.float().T).topk(min(count, len(target.weight)), dim=-1).indices
    return [[str(target.tokenizer.decode([token])) for token in tokens] for tokens in best.tolist()]
