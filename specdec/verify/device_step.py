"""A verify step as GPU backends hand it to their kernels: all of it on the device, and nothing that waits for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.errors import BadLogitsError
from specdec.sampling import SamplingBatch
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
    accepted: Tensor  # int32 [B]
    bad_row: Tensor  # int32 [B], filled with -1: the first row, of the target, of each request that is no distribution
    probability: Tensor  # float32 [N], filled with NaN
    alpha: Tensor | None  # float32 [N]; None: not asked for

    @property
    def batch(self) -> int:
        return self.accepted.shape[0]

    @property
    def most_drafts(self) -> int:
        """n_max: drafts of a request at most."""
        return self.tokens.shape[1] - 1


def begin(given: VerifyInput) -> DeviceStep:
    """Under "raise" also checks sampling parameters, and so waits for the device."""
    if given.on_bad_row == "raise":
        check_sampling(given.sampling)
    draft, counts = given.draft, given.counts
    device, batch, n = given.target_logits.device, len(counts), draft.token_ids.shape[0]
    # The shapes of the batch are known to the host. One copy, from pinned memory where there is a GPU: not waited for.
    rows = torch.tensor([0, *(c + 1 for c in counts)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    request = torch.arange(batch, dtype=torch.int32).repeat_interleave(rows.diff())
    shape = torch.cat([rows, request])
    if device.type != "cpu":
        shape = shape.pin_memory().to(device, non_blocking=True)
    return DeviceStep(
        target=given.target_logits,
        first_row=shape[: batch + 1],
        request_of_row=shape[batch + 1 :],
        token_ids=draft.token_ids.contiguous(),
        draft_logits=draft.logits,
        draft_stats=None if draft.row_stats is None else draft.row_stats.contiguous(),
        draft_rows=None if draft.rows is None or draft.logits is None else draft.rows.contiguous(),
        sampling=given.sampling,
        tokens=torch.full((batch, max(counts, default=0) + 1), -1, dtype=torch.int32, device=device),
        accepted=torch.zeros(batch, dtype=torch.int32, device=device),
        bad_row=torch.full((batch,), -1, dtype=torch.int32, device=device),
        probability=torch.full((n,), torch.nan, device=device),
        alpha=torch.zeros(n, device=device) if given.expected_acceptance else None,
    )


def end(step: DeviceStep, on_bad_row: OnBadRow) -> VerifyOutput:
    """What the kernels have filled. Under "raise" waits for the device, and raises BadLogitsError for a bad row."""
    if on_bad_row == "repair":
        return VerifyOutput(step.tokens, step.accepted, step.alpha, step.probability, step.bad_row)
    for request, row in enumerate(step.bad_row.tolist()):
        if row >= 0:
            raise BadLogitsError(request, row)
    return VerifyOutput(step.tokens, step.accepted, step.alpha, step.probability)
