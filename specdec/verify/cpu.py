"""The cpu backend: hands addresses and strides to csrc/cpu/ (AVX-512, AVX2 or scalar, chosen when it runs).

SPECDEC_CPU_ISA = auto, scalar, avx2 or avx512 forces one of them.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from specdec import _C
from specdec.errors import BadLogitsError, SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify.checks import first_bad_rows, is_bad_row, repaired, sampling_error
from specdec.verify.types import NUM_STATS, OnBadRow, VerifyInput, VerifyOutput

_DTYPE_CODES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
_BAD_ROW = 1
_NO_ROWS = (0, 0, 0)


def problem() -> str | None:
    return None


def accepts(device: torch.device) -> bool:
    return device.type == "cpu"


def isa() -> str:
    """The instruction set in use: "scalar", "avx2" or "avx512"."""
    return _C.isa()


def select_isa(name: str) -> None:
    """Raises SpecdecError when this machine cannot run it. "auto" takes the widest."""
    try:
        _C.select_isa(name)
    except ValueError as error:
        raise SpecdecError(str(error)) from None


def verify_token(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return _verify(_C.verify_token, given)


def verify_block(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return _verify(_C.verify_block, given)


def _verify(kernel: Callable[..., tuple[int, int, int] | None], given: VerifyInput) -> VerifyOutput:
    draft, sampling, counts = given.draft, given.sampling, given.counts
    batch, n = len(counts), draft.token_ids.shape[0]
    width = max(counts, default=0) + 1
    tokens = torch.empty((batch, width), dtype=torch.int32)
    accepted = torch.empty(batch, dtype=torch.int32)
    probability = torch.empty(n, dtype=torch.float32)
    alpha = torch.empty(n, dtype=torch.float32) if given.expected_acceptance else None
    bad_row = torch.empty(batch, dtype=torch.int32) if given.on_bad_row == "repair" else None
    token_ids = draft.token_ids.contiguous()
    stats = None if draft.row_stats is None else draft.row_stats.contiguous()
    rows = None if draft.rows is None or draft.logits is None else draft.rows.contiguous()

    def run(target: Tensor) -> tuple[int, int, int] | None:
        return kernel(
            target.shape[1],
            _rows(target),
            counts,
            token_ids.data_ptr(),
            token_ids.dtype == torch.int64,
            _NO_ROWS if draft.logits is None else _rows(draft.logits),
            0 if stats is None else stats.data_ptr(),
            0 if rows is None else rows.data_ptr(),
            _addresses(sampling),
            tokens.data_ptr(),
            width,
            accepted.data_ptr(),
            0 if alpha is None else alpha.data_ptr(),
            probability.data_ptr(),
            0 if bad_row is None else bad_row.data_ptr(),
            torch.get_num_threads(),
        )

    fault = run(given.target_logits)
    broken = None
    if bad_row is not None and fault is not None and fault[0] == _BAD_ROW:
        per_request = torch.tensor(counts, dtype=torch.int64) + 1
        broken = first_bad_rows(given.target_logits, torch.arange(batch).repeat_interleave(per_request), batch)
        fault = run(repaired(given.target_logits))
    if fault is not None:
        raise _error(fault, sampling, "target")
    return VerifyOutput(tokens, accepted, alpha, probability, bad_row if broken is None else broken)


def sample_draft(logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow) -> tuple[Tensor, Tensor]:
    """See specdec.verify.sample_draft."""
    batch = len(sampling)
    tokens = torch.empty(batch, dtype=torch.int32)
    stats = torch.empty((batch, NUM_STATS), dtype=torch.float64)
    fault = _C.sample_draft(
        batch,
        logits.shape[1],
        step,
        _rows(logits),
        _addresses(sampling),
        tokens.data_ptr(),
        stats.data_ptr(),
        torch.get_num_threads(),
    )
    if fault is None:
        return tokens, stats
    if on_bad_row == "repair" and fault[0] == _BAD_ROW:
        point_mass = replace(sampling, temperature=sampling.temperature.masked_fill(is_bad_row(logits), 0.0))
        return sample_draft(repaired(logits), point_mass, step, "raise")
    raise _error(fault, sampling, "draft")


def _rows(logits: Tensor) -> tuple[int, int, int]:
    return logits.data_ptr(), logits.stride(0), _DTYPE_CODES[logits.dtype]


def _addresses(s: SamplingBatch) -> tuple[int, ...]:
    # SamplingBatch has made them contiguous and of the exact dtypes.
    return (
        s.temperature.data_ptr(),
        s.top_k.data_ptr(),
        s.top_p.data_ptr(),
        s.min_p.data_ptr(),
        s.seed.data_ptr(),
        s.position.data_ptr(),
    )


def _error(fault: tuple[int, int, int], sampling: SamplingBatch, what: str) -> SpecdecError:
    code, request, row = fault
    return BadLogitsError(request, row, what) if code == _BAD_ROW else sampling_error(code, request, sampling)


def torch_openmp() -> int:
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch's kernels run on; 0 where there is none."""
    # A preloaded runtime (libiomp5, as vLLM advises) comes before the one that PyTorch brings.
    for library in (None, str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")):
        try:
            function = ctypes.CDLL(library).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


select_isa(os.environ.get("SPECDEC_CPU_ISA", "auto"))
_C.use_openmp(torch_openmp())
