"""The backends, fastest first. Each is a module that is imported when it is first used."""

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
# What serves the tensors of a device, fastest first.
FOR_DEVICE = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "reference")}
_by_device: dict[str, Backend] = {}


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

    Size does not matter to the choice: `cpu` is the faster one for every shape that bench/verify.py has measured. Where
    "auto" has to pass over a faster backend, it says so, once. One that fails later raises: nothing takes its place.
    """
    if name == "auto":
        if device.type not in _by_device:
            _by_device[device.type] = _fastest(device)
        return _by_device[device.type]
    backend = BACKENDS.get(name)
    if not backend.accepts(device):
        raise SpecdecError(f"The verify backend '{name}' does not take tensors on {device}: use backend='auto'.")
    return backend


def _fastest(device: torch.device) -> Backend:
    names = FOR_DEVICE.get(device.type, ("reference",))
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
