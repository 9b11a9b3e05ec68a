"""The backends. Each is a module that is imported when it is first used."""

import contextlib
import importlib
import importlib.util
import warnings
from typing import Protocol, cast

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.registry import Registry
from specdec.sampling import SamplingBatch
from specdec.verify.types import OnBadRow, VerifyInput, VerifyOutput


class Backend(Protocol):
    """What a backend module offers; inputs have passed specdec.verify.checks."""

    def problem(self) -> str | None: ...  # why it cannot run on this machine, as a clause; None: it can

    def accepts(self, device: torch.device) -> bool: ...  # tensors on this device

    def verify_token(self, given: VerifyInput) -> VerifyOutput: ...

    def verify_block(self, given: VerifyInput) -> VerifyOutput: ...

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]: ...


BACKENDS: Registry[Backend] = Registry("verify backend")
NEEDS = {"cpu": "specdec._C", "triton": "triton"}  # modules without which a backend cannot be imported
# Compute capabilities of GPUs whose float64 units do half as much as those for float32 (A100, H100 and H200, B200).
FAST_FLOAT64 = {(8, 0), (9, 0), (10, 0)}
_by_device: dict[torch.device, Backend] = {}


def _register(name: str) -> None:
    def create() -> Backend:
        if (problem := _missing(name)) is not None:
            raise SpecdecError(f"The verify backend '{name}' cannot be used: {problem}.")
        return cast(Backend, importlib.import_module(f"specdec.verify.{name}"))

    BACKENDS.register(name, create)


for _name in ("cuda", "triton", "cpu", "reference"):
    _register(_name)


def backends() -> list[str]:
    """The names that can be used on this machine."""
    return [name for name in BACKENDS.names() if problem_of(name) is None]


def choose(name: str, device: torch.device) -> Backend:
    """The backend called `name`, or for "auto" the fastest one for tensors on `device`. Raises SpecdecError.

    Which are tried, in this order:

        CPU                                                                 cpu, reference
        GPU of compute capability 8.0, 9.0, 10.0 (A100, H100, H200, B200)   cuda, triton, reference
        other GPUs (8.6, 8.9, 10.3, 12.0: RTX, L4, L40S, B300 ...)          triton, cuda, reference
        anything else                                                       reference

    Size does not matter to the choice: `cpu` is the faster one for every shape that bench/verify.py has measured. Where
    "auto" has to pass over a faster backend, it says so, once. One that fails later raises: nothing takes its place.
    """
    if name == "auto":
        if device not in _by_device:
            _by_device[device] = _fastest(device)
        return _by_device[device]
    backend = BACKENDS.get(name)
    if not backend.accepts(device):
        raise SpecdecError(f"The verify backend '{name}' does not take tensors on {device}: use backend='auto'.")
    return backend


def fastest_first(device: torch.device) -> tuple[str, ...]:
    """What can serve the tensors of a device.

    cuda takes every exponential in float64, triton in float32. Where float64 runs at 1/64 of the rate, rows that no
    filter thins out take cuda many times as long as reading them.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) in FAST_FLOAT64
        return ("cuda", "triton", "reference") if fast else ("triton", "cuda", "reference")
    return ("cpu", "reference") if device.type == "cpu" else ("reference",)


def _fastest(device: torch.device) -> Backend:
    names = fastest_first(device)
    # A GPU backend's problem is that of the current GPU.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        problems = {name: problem_of(name) for name in names}
    chosen = next(name for name in names if problems[name] is None)  # the reference runs everywhere
    for name in names[: names.index(chosen)]:
        warnings.warn(
            f"The verify backend '{name}' cannot be used: {problems[name]}. Tensors on {device.type} are served by "
            f"'{chosen}', which is slower.",
            stacklevel=4,
        )
    return BACKENDS.get(chosen)


def problem_of(name: str) -> str | None:
    """Why the backend cannot be used on this machine, as a clause; None where it can."""
    missing = _missing(name)
    return missing if missing is not None else BACKENDS.get(name).problem()


def _missing(name: str) -> str | None:
    module = NEEDS.get(name)
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    if module.startswith("specdec."):
        return f"{module} is not built; install specdec with pip, which needs a C++ compiler"
    return f"the package {module} is not installed"
