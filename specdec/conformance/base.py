"""What an implementation of the verify step must offer to be tested, and what the tests hand it.

To test one of your own, write a class and name it: `specdec conformance --implementation my_package.my_module:Mine`.
A complete one, the token rule in PyTorch with torch's own random numbers:

    import torch
    from specdec.conformance.base import CAPABILITIES, DRAFT_ROWS, RAGGED, Drafts, Implementation

    class Mine(Implementation):
        name = "mine"
        samples = 500
        lacks = {need: "not yet" for need in CAPABILITIES if need not in (DRAFT_ROWS, RAGGED)}

        def keep(self, token_ids, logits, sampling):
            return Drafts(token_ids, logits)

        def verify(self, step):
            tokens = torch.full((len(step.counts), max(step.counts) + 1), -1)
            ids, d = step.drafts.token_ids.tolist(), 0  # d: the request's first draft, d + b its first target row
            for b, n in enumerate(step.counts):
                t = max(float(step.sampling.temperature[b]), 1e-4)
                for j in range(n + 1):
                    rest = p = (step.target[d + b + j].double() / t).softmax(-1)
                    if j < n:
                        q = (step.drafts.rows[d + j].double() / t).softmax(-1)
                        if torch.rand(()) < p[ids[d + j]] / q[ids[d + j]]:
                            tokens[b, j] = ids[d + j]
                            continue
                        rest = (p - q).clamp(min=0)
                    tokens[b, j] = torch.multinomial(rest if rest.sum() > 0 else p, 1)[0]
                    break
                d += n
            return tokens

Each check names what it needs of CAPABILITIES. One that needs something in `lacks` is reported as not applicable, with
the reason given there; it is not a failure. Whatever is not in `lacks` is claimed, and tested.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch

DRAWS_DRAFTS = "draws drafts"  # draw() samples drafts, with random numbers of the implementation's own
DRAFT_ROWS = "draft rows"  # sampled drafts, verified with their distribution
ONE_HOT = "one-hot drafts"  # drafts without a distribution
TOP_K, TOP_P, MIN_P = "top-k", "top-p", "min-p"
SEEDS = "seeds"  # a request may bring a seed, beside requests that do not
BLOCK = "block"  # the block rule
RAGGED = "ragged batches"  # another number of drafts for each request, 0 among them
PLACEHOLDERS = "placeholders"  # draft ids of -1, to be rejected
LOST_ROWS = "lost rows"  # Step.lost
ZERO_UNIFORM = "zero uniform"  # Step.zero_uniform
PENALTIES = "penalties"  # Step.presence_penalty
MANY_DRAWS = "many draws"  # 10^8 and more random numbers in a few seconds

CAPABILITIES = (
    DRAWS_DRAFTS, DRAFT_ROWS, ONE_HOT, TOP_K, TOP_P, MIN_P, SEEDS, BLOCK, RAGGED, PLACEHOLDERS, LOST_ROWS, ZERO_UNIFORM,
    PENALTIES, MANY_DRAWS,
)  # fmt: skip

Method = Literal["token", "block"]


@dataclass(frozen=True, slots=True)
class Drafts:
    """N draft tokens and what the implementation keeps of the rows that sampled them; the checks only hand it back.

    token_ids  int32 [N], request-major
    rows       [N, V]: logits, probabilities, or what else verify() wants; None for one-hot drafts
    extra      [N, K]: further numbers per draft, or None
    """

    token_ids: Tensor
    rows: Tensor | None
    extra: Tensor | None = None

    def __getitem__(self, index: Tensor) -> "Drafts":
        """Drafts `index` (int64 [M]), in that order."""
        return Drafts(self.token_ids[index], *(None if x is None else x[index] for x in (self.rows, self.extra)))


@dataclass(slots=True)
class Step:
    """One verify step of B requests with N drafts over V tokens.

    target            [N + B, V] bf16 or f32 logits: each request's draft rows, then its bonus row. Not to be written
    drafts            N drafts
    counts            drafts of each request; the sum is N
    sampling          the B requests' parameters. temperature 0: greedy. position: of the step's first token
    seeded            bool [B]; False: the request brought no seed, and sampling.seed says nothing
    method            the rule
    lost              requests whose draft rows are gone, as behind a step that they sat out
    zero_uniform      every random number that decides on an acceptance is exactly 0
    presence_penalty  float32 [B], subtracted from the logits of tokens that the request has emitted, earlier drafts of
                      this step among them; None: off
    """

    target: Tensor
    drafts: Drafts
    counts: list[int]
    sampling: SamplingBatch
    seeded: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    method: Method = "token"
    lost: tuple[int, ...] = ()
    zero_uniform: bool = False
    presence_penalty: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.seeded.numel():
            self.seeded = torch.ones(len(self.counts), dtype=torch.bool)


class Implementation(ABC):
    """One implementation. `samples`: how many requests a statistical check may verify; 400 at least."""

    name: str
    samples: int = 20_000
    lacks: Mapping[str, str] = {}
    device: str = "cpu"

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        """One draft per request.

        logits [B, V] float32 or bf16: the head's, not to be written. seeded bool [B] as in Step; step: the draft's
        index in its verify step, which begins at sampling.position.
        """
        raise NotImplementedError

    @abstractmethod
    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        """Drafts that somebody else chose, with their rows: token_ids int32 [N], logits [N, V], N entries of sampling.
        """  # fmt: skip

    @abstractmethod
    def verify(self, step: Step) -> Tensor:
        """int [B, n_max + 1]: the tokens that each request emits, then -1. n_max: the largest of step.counts."""


class Violation(Exception):
    """A check has found its bug; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Check:
    """run: returns what was measured in one line, or raises Violation. bug: its number in the list of known bugs."""

    name: str
    bug: str
    needs: tuple[str, ...]
    run: Callable[[Implementation], str]

    @property
    def summary(self) -> str:
        """The first line of the check's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    def missing(self, implementation: Implementation) -> str | None:
        """Why it does not apply; None where it does."""
        lacking = [f"no {need}: {implementation.lacks[need]}" for need in self.needs if need in implementation.lacks]
        return lacking[0] if lacking else None
