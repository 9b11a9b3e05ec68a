"""Input that cannot be verified, told apart by request and row. Every backend reports through these."""

from dataclasses import replace

import torch
from torch import Tensor

from specdec import _C
from specdec.errors import BadLogitsError, SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify.types import NUM_STATS, Draft

LOGIT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_VOCABULARY = 2**24  # the triton backend numbers tiles of 512 tokens in int16


def is_bad_row(logits: Tensor) -> Tensor:
    """bool [R] for logits [R, V]: a NaN or +inf, or nothing but -inf."""
    largest = logits.amax(-1)  # amax passes NaN on
    return ~largest.isfinite()


def check_rows(logits: Tensor, request_of_row: Tensor, what: str) -> None:
    bad = is_bad_row(logits).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        raise BadLogitsError(int(request_of_row[row]), row, what)


def first_bad_rows(logits: Tensor, request_of_row: Tensor, batch: int) -> Tensor:
    """int32 [B]: the first row of each request that is_bad_row; -1 where none is. request_of_row [R] int64."""
    rows = torch.arange(len(logits), device=logits.device)
    none = torch.full((batch,), len(logits), device=logits.device)
    first = none.scatter_reduce(0, request_of_row, torch.where(is_bad_row(logits), rows, len(logits)), "amin")
    return torch.where(first < len(logits), first, -1).to(torch.int32)


def repaired(logits: Tensor) -> Tensor:
    """logits [R, V] with each row that is_bad_row replaced by its finite entries alone; by token 0 if it has none.

    The row's request alone is served otherwise than its logits say. Token 0 is what vLLM's argmax gives then.
    """
    finite = torch.where(logits.isfinite(), logits, -torch.inf)
    finite[:, 0] = torch.where(finite.amax(-1).isfinite(), finite[:, 0], 0.0)
    return torch.where(is_bad_row(logits)[:, None], finite, logits)


def check_sampling(s: SamplingBatch) -> None:
    """Raises SpecdecError naming the first request whose parameters are out of range."""
    faults = (
        (2, ~((s.temperature >= 0) & s.temperature.isfinite())),
        (3, ~((s.top_p > 0) & (s.top_p <= 1))),
        (4, ~((s.min_p >= 0) & (s.min_p <= 1))),
    )
    for code, at in faults:
        if at.any():
            raise sampling_error(code, int(at.nonzero()[0, 0]), s)


def sampling_error(code: int, request: int, s: SamplingBatch) -> SpecdecError:
    """code: 2 temperature, 3 top_p, 4 min_p (csrc/cpu/api.h, enum Fault)."""
    name, wanted = {
        2: ("temperature", "a finite number, 0 or above"),
        3: ("top_p", "above 0, at most 1"),
        4: ("min_p", "from 0 to 1"),
    }[code]
    value = float(getattr(s, name)[request])
    return SpecdecError(f"{name} of request {request} is {value}: it must be {wanted}.")


def check_on_bad_row(choice: str) -> None:
    if choice not in ("raise", "repair"):
        raise SpecdecError(f"on_bad_row is {choice!r}: use 'raise' or 'repair'.")


def check_logits(logits: Tensor, name: str) -> Tensor:
    """logits as [rows, V] with adjacent columns (a copy only where they are not). Raises SpecdecError."""
    if logits.dtype not in LOGIT_DTYPES:
        raise SpecdecError(f"{name} is {logits.dtype}: convert it to bfloat16, float16 or float32.")
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise SpecdecError(f"{name} has shape {list(logits.shape)}: pass a matrix [rows, vocabulary].")
    if logits.shape[1] > LARGEST_VOCABULARY:
        raise SpecdecError(f"{name} has {logits.shape[1]} columns: a vocabulary of at most {LARGEST_VOCABULARY} fits.")
    return logits if logits.stride(1) == 1 or logits.shape[1] == 1 else logits.contiguous()


def check_draft(target_logits: Tensor, draft: Draft, sampling: SamplingBatch, counts: list[int]) -> Draft:
    """The draft with its logits as check_logits leaves them. Raises SpecdecError where shapes do not fit together."""
    n, batch = sum(counts), len(counts)
    if batch and min(counts) < 0:
        raise SpecdecError(f"num_per_request holds {min(counts)}: use 0 for a request without drafts.")
    if len(sampling) != batch:
        raise SpecdecError(f"sampling has {len(sampling)} requests, num_per_request {batch}: make them equal.")
    if draft.token_ids.shape != (n,) or draft.token_ids.dtype not in (torch.int32, torch.int64):
        raise SpecdecError(
            f"token_ids is {draft.token_ids.dtype} {list(draft.token_ids.shape)}: num_per_request asks for int32 or "
            f"int64 of shape [{n}]."
        )
    if target_logits.shape[0] != n + batch:
        raise SpecdecError(
            f"target_logits has {target_logits.shape[0]} rows: {n} drafts of {batch} requests need {n + batch}, each "
            "request's draft rows and then its bonus row."
        )
    if draft.logits is None:
        if draft.row_stats is not None:
            raise SpecdecError(
                "row_stats came without logits: pass the draft's logits too, or neither for one-hot drafts."
            )
        return draft
    logits = check_logits(draft.logits, "draft logits")
    rows = n if draft.rows is None else logits.shape[0]
    vocab = target_logits.shape[1]
    if logits.shape != (rows, vocab):
        raise SpecdecError(f"draft logits have shape {list(logits.shape)}: the target asks for [{rows}, {vocab}].")
    if draft.row_stats is not None and (
        draft.row_stats.shape != (rows, NUM_STATS) or draft.row_stats.dtype != torch.float64
    ):
        raise SpecdecError(
            f"row_stats is {draft.row_stats.dtype} {list(draft.row_stats.shape)}: pass float64 [{rows}, {NUM_STATS}], "
            "as sample_draft returns it."
        )
    _check_row_index(draft.rows, n, rows)
    return draft if logits is draft.logits else replace(draft, logits=logits)


def _check_row_index(index: Tensor | None, n: int, rows: int) -> None:
    if index is None:
        return
    if index.shape != (n,) or index.dtype != torch.int64:
        raise SpecdecError(f"rows is {index.dtype} {list(index.shape)}: pass int64 [{n}], one entry per draft.")
    if index.device.type != "cpu":  # looking would mean waiting for the device
        return
    wrong = _C.first_outside(index.contiguous().data_ptr(), n, -1, rows - 1)
    if wrong is not None:
        raise SpecdecError(f"rows holds {wrong}: draft logits have {rows} rows, and -1 means that none is kept.")
