"""verify and sample_draft: check the input, choose the method and the backend."""

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import TypeAlias

from torch import Tensor

from specdec.errors import SpecdecError
from specdec.registry import Registry
from specdec.sampling import SamplingBatch
from specdec.verify.backends import Backend, backends, choose
from specdec.verify.checks import check_draft, check_logits, check_on_bad_row
from specdec.verify.types import Draft, OnBadRow, VerifyInput, VerifyOutput

__all__ = ["METHODS", "backends", "sample_draft", "verify"]

# Tensors that must be where the logits are. The host reads num_per_request, wherever that is.
_MOVED = {kind: [f.name for f in fields(kind) if f.name != "num_per_request"] for kind in (Draft, SamplingBatch)}

Method: TypeAlias = Callable[[VerifyInput], VerifyOutput]

# How a method's function is found in a backend.
METHODS: Registry[Callable[[Backend], Method]] = Registry("verify method")
METHODS.register("token", lambda: lambda backend: backend.verify_token)
METHODS.register("block", lambda: lambda backend: backend.verify_block)


def verify(
    target_logits: Tensor,
    draft: Draft,
    sampling: SamplingBatch,
    method: str = "token",
    backend: str = "auto",
    expected_acceptance: bool = False,
    on_bad_row: OnBadRow = "raise",
) -> VerifyOutput:
    """Accepts, recovers and draws bonus tokens, so that the output follows the target's distribution exactly.

    target_logits        [N + B, V] bf16, fp16 or f32: each request's draft rows, then its bonus row; rows may be
                         strided; never written
    draft                N draft tokens of B requests, with the distributions that sampled them (see Draft)
    sampling             the B requests' parameters; they apply to every target row of the request
    method               "token" (Leviathan et al., arXiv 2211.17192, algorithm 1) or "block" (Sun et al., arXiv
                         2403.10444, algorithm 2): never fewer accepted drafts in expectation, but it reads every draft
                         row in full. With "block" a request with a draft that is not a sample of its row (greedy
                         request, point mass, broken row, id outside [0, V)) is verified by the token rule, and so is
                         the whole call, with one warning per process, where draft.logits is None
    backend              "auto", or one of backends()
    expected_acceptance  also compute Σ min(p, q) for every draft, which reads all rows in full
    on_bad_row           what to do with a target row that holds NaN or +inf or nothing but -inf. "raise": raise before
                         anything is drawn. "repair": take its finite entries alone, and where there are none a point
                         mass on token 0, and say so in `bad_row`; on a GPU nothing then waits for the device, so
                         sampling parameters are not checked there either

    Raises SpecdecError (a ValueError) for shapes, dtypes or parameters that do not fit; BadLogitsError naming request
    and row of the first bad target row under "raise". Draft rows are not checked: one that is no distribution gets its
    token rejected, and the recovered token comes from the target.
    """
    counts = draft.counts()
    target_logits = check_logits(target_logits, "target_logits")
    draft = check_draft(target_logits, draft, sampling, counts)
    _check_devices("target_logits", target_logits, "draft", draft)
    _check_devices("target_logits", target_logits, "sampling", sampling)
    check_on_bad_row(on_bad_row)
    chosen = choose(backend, target_logits.device)
    if method == "block" and draft.logits is None:
        if sum(counts):
            _warn_one_hot()
        method = "token"
    given = VerifyInput(target_logits, draft, sampling, counts, expected_acceptance, on_bad_row)
    return METHODS.get(method)(chosen)(given)


def sample_draft(
    logits: Tensor, sampling: SamplingBatch, step: int, backend: str = "auto", on_bad_row: OnBadRow = "raise"
) -> tuple[Tensor, Tensor]:
    """Draws one draft token per request, and states the distribution it came from.

    logits    [B, V] bf16, fp16 or f32; rows may be strided; not written. Keep them: they are Draft.logits
    sampling  the B requests' parameters
    step      the draft's index in its verify step: 0 for the first, with the same sampling.position for all of them.
              (seed, position, step) name its random number, so the next step, whose position is another, meets fresh
              ones: block verification asks for that
    on_bad_row  what to do with a row that holds NaN or +inf or nothing but -inf. "raise", or "repair": its draft is the
              largest of its finite entries, or token 0 where there are none, as a point mass

    Returns token_ids [B] int32 and row_stats [B, 4] float64 for Draft (temperature, threshold, log-sum-exp, sampled
    logit). Greedy requests get the argmax, and the temperature 0 and log-sum-exp 0 in row_stats: a point mass.

    Raises SpecdecError (a ValueError) as verify does; BadLogitsError where a row is no distribution, under "raise".
    """
    logits = check_logits(logits, "logits")
    if logits.shape[0] != len(sampling):
        raise SpecdecError(f"logits has {logits.shape[0]} rows, sampling {len(sampling)} requests: make them equal.")
    _check_devices("logits", logits, "sampling", sampling)
    check_on_bad_row(on_bad_row)
    return choose(backend, logits.device).sample_draft(logits, sampling, step, on_bad_row)


@cache
def _warn_one_hot() -> None:
    warnings.warn(
        "method='block' has no effect on one-hot drafts (draft.logits is None), which are verified by the token rule: "
        "sample the drafts and pass their logits, or use method='token'.",
        stacklevel=3,
    )


def _check_devices(name: str, logits: Tensor, owner_name: str, owner: Draft | SamplingBatch) -> None:
    """Raises SpecdecError naming the owner's first tensor that is not where the logits are."""
    device = logits.device
    for field in _MOVED[type(owner)]:
        tensor = getattr(owner, field)
        if tensor is not None and tensor.device != device:
            raise SpecdecError(
                f"{owner_name}.{field} is on {tensor.device}, {name} on {device}: move them to one device."
            )
