"""What goes into a verify step and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from specdec.sampling import SamplingBatch

OnBadRow: TypeAlias = Literal["raise", "repair"]

# Columns of row statistics (float64): enough to know q(sampled token) without reading the row again.
TEMPERATURE, THRESHOLD, LOG_SUM_EXP, SAMPLED_LOGIT = range(4)
NUM_STATS = 4


@dataclass(slots=True)
class Draft:
    """The draft tokens of a batch, request-major. N drafts over B requests.

    token_ids        [N] int32 or int64. An id outside [0, V) (say a -1 placeholder) is rejected, with q = 0.
    num_per_request  [B] drafts of each request, 0 allowed: a list of ints or an integer tensor; the sum is N.
    logits           [R, V] bf16, fp16 or f32: the very rows that sampled the tokens; None for one-hot drafts
                     (greedy head, n-gram), where q is a point mass on the token.
    row_stats        [R, 4] float64 from sample_draft: temperature (0 = the token was the argmax: a point mass),
                     threshold in raw-logit units (kept: l >= threshold), log-sum-exp of l / T over the kept tokens,
                     logit of the sampled token. Without it, q is computed from `logits` with the request's own
                     sampling parameters.
    rows             [N] int64, the row of `logits` and `row_stats` that belongs to each draft, so that rows kept in a
                     pool are read where they are; -1: its row is not kept, and the draft is verified as one-hot. Any
                     other index outside [0, R) is an error on the CPU; on a GPU, where finding it would mean waiting
                     for the device, it counts as -1. None: draft i has row i, and R = N.
    """

    token_ids: Tensor
    num_per_request: Sequence[int] | Tensor
    logits: Tensor | None = None
    row_stats: Tensor | None = None
    rows: Tensor | None = None

    def counts(self) -> list[int]:
        """num_per_request as a list."""
        counts = self.num_per_request
        return counts.tolist() if isinstance(counts, Tensor) else list(counts)


@dataclass(frozen=True, slots=True)
class VerifyInput:
    """One verify step as specdec.verify.verify has checked it, for a backend; the fields are its parameters.

    counts: draft.num_per_request as a list.
    """

    target_logits: Tensor
    draft: Draft
    sampling: SamplingBatch
    counts: list[int]
    expected_acceptance: bool
    on_bad_row: OnBadRow


@dataclass(slots=True)
class VerifyOutput:
    """B requests, n_max = the largest number of drafts of any of them, N drafts in all.

    token_ids               [B, n_max + 1] int32: the accepted tokens, then the recovered or bonus token, then -1
    num_accepted            [B] int32; num_accepted + 1 tokens are emitted
    expected_acceptance     [N] float32 Σ_v min(p(v), q(v)) for every draft, reached or not; None unless asked for.
                            0 for a token id outside [0, V)
    acceptance_probability  [N] float32, for each draft the probability that it is accepted given all drafts and that
                            those before it are accepted; NaN where one before it is not (not reached). Token rule:
                            min(1, p(x) / q(x)). Block rule: T_i / T_{i-1} of specdec/verify/block.py for draft i.
                            Under both the expected sum over the reached drafts of a position is the expected number
                            of its accepted drafts
    bad_row                 [B] int32, under on_bad_row="repair" only: the first row of the target logits, of each
                            request, that is no distribution; -1 where all are
    """

    token_ids: Tensor
    num_accepted: Tensor
    expected_acceptance: Tensor | None
    acceptance_probability: Tensor
    bad_row: Tensor | None = None
