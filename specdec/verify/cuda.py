"""The cuda backend: hands addresses and strides to kernels/cuda/ on torch's current stream (sm_80 and later).

The build makes libspecdec_cuda.so where it finds nvcc. The library does not link against torch, so one build serves
every torch version.
"""

import contextlib
import ctypes
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import specdec
from specdec.errors import SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify import device_step
from specdec.verify.checks import check_sampling
from specdec.verify.device_step import DeviceStep
from specdec.verify.types import NUM_STATS, OnBadRow, VerifyInput, VerifyOutput

LIBRARY = "libspecdec_cuda.so"
OLDEST = (8, 0)  # compute capability

_DTYPE_CODES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}


class _Matrix(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("stride", c_int64), ("dtype", c_int64)]


class _Sampling(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in ("temperature", "top_k", "top_p", "min_p", "seed", "position")]


class _VerifyTask(ctypes.Structure):  # kernels/cuda/api.h, field by field
    _fields_ = [
        *((name, c_int64) for name in ("vocab", "requests", "drafts")),
        ("target", _Matrix),
        *((name, c_void_p) for name in ("first_row", "row_request", "token_ids")),
        ("token_ids_are_int64", c_int64),
        ("draft", _Matrix),
        *((name, c_void_p) for name in ("draft_stats", "draft_rows")),
        ("num_draft_rows", c_int64),
        ("sampling", _Sampling),
        ("tokens", c_void_p),
        ("width", c_int64),
        *((name, c_void_p) for name in ("accepted", "bad_row", "probability", "alpha", "scratch")),
    ]


class _SampleTask(ctypes.Structure):  # likewise
    _fields_ = [
        *((name, c_int64) for name in ("vocab", "requests", "step")),
        ("logits", _Matrix),
        ("sampling", _Sampling),
        *((name, c_void_p) for name in ("tokens", "stats", "is_bad")),
    ]


class Kernels:
    """The functions of one library with the interface of kernels/cuda/api.h."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be loaded."""
        self._library = ctypes.CDLL(str(path))
        for name, task in (("verify_token", _VerifyTask), ("verify_block", _VerifyTask), ("sample_draft", _SampleTask)):
            function = self._function(name)
            function.argtypes, function.restype = [POINTER(task), c_int32, c_void_p], c_char_p
        self._function("scratch_bytes").argtypes, self._function("scratch_bytes").restype = [c_int64, c_int64], c_int64
        self._function("architectures").restype = c_char_p
        self._function("problem").argtypes, self._function("problem").restype = [c_int32], c_char_p
        self._function("limit").argtypes, self._function("limit").restype = [c_int32, c_int64], None

    def architectures(self) -> list[str]:
        """That there is code for: "sm_80", "sm_90a", and "compute_90" as PTX."""
        return self._function("architectures")().decode().split()

    def problem(self, device: int) -> str | None:
        """What CUDA says when it is asked to run a kernel on GPU `device`: an old driver, no code for it. None: it can.
        May compile PTX, for some seconds; makes it the runtime's current device."""
        error = self._function("problem")(device)
        return None if error is None else error.decode()

    def limit(self, team: int = 0, shared_bytes: int = 0) -> None:
        """How many thread blocks share a row (where there are clusters; 1, 2, 4 or 8), and the most shared memory, in
        bytes, that each may use; 0: as suits the device. For tests and measurements."""
        self._function("limit")(team, shared_bytes)

    def verify(self, method: str, given: VerifyInput) -> VerifyOutput:
        """method: "verify_token" or "verify_block"."""
        step = device_step.begin(given)
        size = self._function("scratch_bytes")(step.batch, len(step.token_ids))
        scratch = torch.empty(size, dtype=torch.uint8, device=step.target.device)
        self._launch(method, _verify_task(step, scratch), step.target.device)
        return device_step.end(step, given.on_bad_row)

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]:
        """See specdec.verify.sample_draft."""
        if on_bad_row == "raise":
            check_sampling(sampling)
        batch, vocab = logits.shape
        tokens = torch.empty(batch, dtype=torch.int32, device=logits.device)
        stats = torch.empty((batch, NUM_STATS), dtype=torch.float64, device=logits.device)
        is_bad = torch.empty_like(tokens)
        outputs = (t.data_ptr() for t in (tokens, stats, is_bad))
        task = _SampleTask(vocab, batch, step, _matrix(logits), _addresses(sampling), *outputs)
        self._launch("sample_draft", task, logits.device)
        if on_bad_row == "raise":
            device_step.check_drawn(is_bad)
        return tokens, stats

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"specdec_cuda_{name}")

    def _launch(self, name: str, task: ctypes.Structure, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        with torch.cuda.device(device) if on_gpu else contextlib.nullcontext():
            stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else None
            error = self._function(name)(ctypes.byref(task), device.index or 0, stream)
        if error is not None:
            raise SpecdecError(f"The cuda backend could not run {name} on {device}: {error.decode()}.")


@cache
def kernels() -> Kernels:
    """Those of the installed library. Raises SpecdecError where the build made none, or it cannot be loaded."""
    path = library_path()
    if path is None:
        raise SpecdecError("The CUDA kernels are not built: install specdec where nvcc is on PATH.")
    try:
        return Kernels(path)
    except OSError as error:
        raise SpecdecError(f"The CUDA kernels cannot be loaded ({error}): install specdec again.") from None


def library_path() -> Path | None:
    """Where the build has put the library; in an editable installation not beside the sources."""
    return next((path for folder in specdec.__path__ if (path := Path(folder) / LIBRARY).exists()), None)


def problem() -> str | None:
    """Of torch's current GPU."""
    return _problem_of(torch.cuda.current_device()) if torch.cuda.is_available() else "there is no GPU"


@cache
def _problem_of(device: int) -> str | None:
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "the GPU is older than sm_80"
    try:
        with torch.cuda.device(device):
            error = kernels().problem(device)
    except SpecdecError as unusable:
        return str(unusable).removesuffix(".")
    return None if error is None else f"its kernels cannot run on this GPU, says CUDA ({error})"


def accepts(device: torch.device) -> bool:
    return device.type == "cuda"


def verify_token(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return kernels().verify("verify_token", given)


def verify_block(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return kernels().verify("verify_block", given)


def sample_draft(logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow) -> tuple[Tensor, Tensor]:
    """See specdec.verify.sample_draft."""
    return kernels().sample_draft(logits, sampling, step, on_bad_row)


def _verify_task(step: DeviceStep, scratch: Tensor) -> _VerifyTask:
    def address(tensor: Tensor | None) -> int | None:
        return None if tensor is None else tensor.data_ptr()

    return _VerifyTask(
        step.target.shape[1],
        step.batch,
        len(step.token_ids),
        _matrix(step.target),
        address(step.first_row),
        address(step.request_of_row),
        address(step.token_ids),
        step.token_ids.dtype == torch.int64,
        _Matrix() if step.draft_logits is None else _matrix(step.draft_logits),
        address(step.draft_stats),
        address(step.draft_rows),
        0 if step.draft_logits is None else step.draft_logits.shape[0],
        _addresses(step.sampling),
        address(step.tokens),
        step.tokens.shape[1],
        address(step.accepted),
        address(step.bad_row),
        address(step.probability),
        address(step.alpha),
        address(scratch),
    )


def _matrix(logits: Tensor) -> _Matrix:
    return _Matrix(logits.data_ptr(), logits.stride(0), _DTYPE_CODES[logits.dtype])


def _addresses(s: SamplingBatch) -> _Sampling:
    # SamplingBatch has made them contiguous and of the exact dtypes.
    return _Sampling(*(t.data_ptr() for t in (s.temperature, s.top_k, s.top_p, s.min_p, s.seed, s.position)))
