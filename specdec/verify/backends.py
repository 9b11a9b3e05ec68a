"""The backends, fastest first. Each is a module that is imported when it is first used."""

import importlib
import importlib.util
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.registry import Registry
from specdec.sampling import SamplingBatch
from specdec.verify.types import Draft, VerifyOutput

OnBadRow: TypeAlias = Literal["raise", "repair"]


class Backend(Protocol):
    """What a backend module offers; inputs have passed specdec.verify.checks."""

    def available(self) -> bool: ...  # on this machine

    def accepts(self, device: torch.device) -> bool: ...  # tensors on this device

    def verify_token(
        self,
        target_logits: Tensor,
        draft: Draft,
        sampling: SamplingBatch,
        counts: list[int],
        expected_acceptance: bool,
        on_bad_row: OnBadRow,
    ) -> VerifyOutput: ...

    def verify_block(
        self,
        target_logits: Tensor,
        draft: Draft,
        sampling: SamplingBatch,
        counts: list[int],
        expected_acceptance: bool,
        on_bad_row: OnBadRow,
    ) -> VerifyOutput: ...

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]: ...


BACKENDS: Registry[Backend] = Registry("verify backend")
_by_device: dict[str, Backend] = {}


def _module(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"specdec.verify.{name}"))


def _cpu() -> Backend:
    if importlib.util.find_spec("specdec._C") is None:
        raise SpecdecError("The cpu backend is not built: install specdec with pip, or use backend='reference'.")
    return _module("cpu")


def _triton() -> Backend:
    if importlib.util.find_spec("triton") is None:
        raise SpecdecError("The triton backend needs the package triton: install it, or use backend='auto'.")
    return _module("triton")


BACKENDS.register("cuda", lambda: _module("cuda"))
BACKENDS.register("triton", _triton)
BACKENDS.register("cpu", _cpu)
BACKENDS.register("reference", lambda: _module("reference"))


def backends() -> list[str]:
    """The names that can be used on this machine."""
    return [name for name in BACKENDS.names() if _usable(name)]


def choose(name: str, device: torch.device) -> Backend:
    """The backend called `name`; for "auto" the first one that takes tensors on `device`. Raises SpecdecError."""
    if name == "auto":
        if device.type not in _by_device:
            # On CPU tensors the triton backend is an interpreter, for tests.
            names = [n for n in BACKENDS.names() if not (n == "triton" and device.type == "cpu")]
            _by_device[device.type] = next(
                BACKENDS.get(n) for n in names if _usable(n) and BACKENDS.get(n).accepts(device)
            )
        return _by_device[device.type]
    backend = BACKENDS.get(name)
    if not backend.accepts(device):
        raise SpecdecError(f"The verify backend '{name}' does not take tensors on {device}: use backend='auto'.")
    return backend


def _usable(name: str) -> bool:
    if name == "cpu" and importlib.util.find_spec("specdec._C") is None:
        return False
    if name == "triton" and importlib.util.find_spec("triton") is None:
        return False
    return BACKENDS.get(name).available()
