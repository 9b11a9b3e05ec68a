"""A verify step as GPU backends hand it to their kernels: all of it on the device, and nothing that waits for it."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from specdec.errors import BadLogitsError, SpecdecError
from specdec.sampling import SamplingBatch
from specdec.upload import to_device
from specdec.verify.checks import check_sampling
from specdec.verify.types import OnBadRow, VerifyInput, VerifyOutput


@dataclass(slots=True)
class DeviceStep:
    """B requests, N drafts, V tokens; the kernels read the first part and fill the second.

    Request b has the target rows first_row[b] .. first_row[b + 1] - 1, the last of them its bonus row, and the drafts
    first_row[b] - b .. first_row[b + 1] - b - 2.
    """

    target: Tensor  # [N + B, V], columns adjacent
    first_row: Tensor  # int32 [B + 1]
    request_of_row: Tensor  # int32 [N + B]
    token_ids: Tensor  # int32 or int64 [N], contiguous
    draft_logits: Tensor | None  # [R, V], columns adjacent; None: all drafts are one-hot
    draft_stats: Tensor | None  # float64 [R, 4], contiguous
    draft_rows: Tensor | None  # int64 [N], contiguous; None: draft i has row i
    sampling: SamplingBatch

    tokens: Tensor  # int32 [B, n_max + 1], filled with -1
    accepted: Tensor  # int32 [B], not filled
    bad_row: Tensor  # int32 [B], filled with -1: the first row, of the target, of each request that is no distribution
    probability: Tensor  # float32 [N], filled with NaN
    alpha: Tensor | None  # float32 [N], not filled; None: not asked for

    @property
    def batch(self) -> int:
        return self.accepted.shape[0]

    @property
    def most_drafts(self) -> int:
        """n_max: drafts of a request at most."""
        return self.tokens.shape[1] - 1


def begin(given: VerifyInput) -> DeviceStep:
    """Under "raise" also checks sampling parameters, and so waits for the device.

    Raises SpecdecError where a CUDA graph is being captured: counts are the host's, and come by a copy from pinned
    memory, which a graph would repeat with the numbers of the first step.
    """
    draft, counts, device = given.draft, given.counts, given.target_logits.device
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise SpecdecError(
            "verify copies from the host, and cannot be captured in a CUDA graph: call it outside of one."
        )
    if given.on_bad_row == "raise":
        check_sampling(given.sampling)
    batch, n = len(counts), draft.token_ids.shape[0]
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    first_row, request_of_row = _layout(tuple(counts), device, stream)
    return DeviceStep(
        target=given.target_logits,
        first_row=first_row,
        request_of_row=request_of_row,
        token_ids=draft.token_ids.contiguous(),
        draft_logits=draft.logits,
        draft_stats=None if draft.row_stats is None else draft.row_stats.contiguous(),
        draft_rows=None if draft.rows is None or draft.logits is None else draft.rows.contiguous(),
        sampling=given.sampling,
        tokens=torch.full((batch, max(counts, default=0) + 1), -1, dtype=torch.int32, device=device),
        accepted=torch.empty(batch, dtype=torch.int32, device=device),
        bad_row=torch.full((batch,), -1, dtype=torch.int32, device=device),
        probability=torch.full((n,), torch.nan, device=device),
        alpha=torch.empty(n, device=device) if given.expected_acceptance else None,
    )


@lru_cache(maxsize=32)
def _layout(counts: tuple[int, ...], device: torch.device, stream: int) -> tuple[Tensor, Tensor]:
    """first_row and request_of_row, which nobody writes. One copy, not waited for; kept, as from one step to the next
    the counts are mostly the same, for the stream that the copy was ordered on."""
    rows = torch.tensor([0, *(c + 1 for c in counts)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    request = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(rows.diff())
    both = to_device(torch.cat([rows, request]), device)
    return both[: len(rows)], both[len(rows) :]


def end(step: DeviceStep, on_bad_row: OnBadRow) -> VerifyOutput:
    """What the kernels have filled. Under "raise" waits for the device, and raises BadLogitsError for a bad row."""
    if on_bad_row == "repair":
        return VerifyOutput(step.tokens, step.accepted, step.alpha, step.probability, step.bad_row)
    for request, row in enumerate(step.bad_row.tolist()):
        if row >= 0:
            raise BadLogitsError(request, row)
    return VerifyOutput(step.tokens, step.accepted, step.alpha, step.probability)


def check_drawn(is_bad: Tensor) -> None:
    """After sample_draft under "raise": waits for the device. Raises BadLogitsError for the first row that is_bad.

    is_bad: int32 [B], 1 where the request's row is no distribution, else 0.
    """
    for row, bad in enumerate(is_bad.tolist()):
        if bad:
            raise BadLogitsError(row, row, "draft")
