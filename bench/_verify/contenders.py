"""What is timed: our backends, other implementations of the same step, and the floor: reading the same bytes once.

Each contender turns a case into (prepare, run): `prepare` is not timed, and what it returns is handed to `run`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from _verify import engines
from _verify.cases import Case
from _verify.engines import Prepare, Run

from specdec.verify import backends, verify


class Contender(NamedTuple):
    name: str
    absent: Callable[[str], str | None]  # device -> why it cannot run there
    make: Callable[[Case], tuple[Prepare, Run]]


def ours(name: str, method: str = "token") -> Contender:
    def absent(device: str) -> str | None:
        if name not in backends():
            return "not usable on this machine"
        if (name in ("cuda", "triton")) != (device == "cuda") and name != "reference":
            return f"not for {device}"
        return None

    def make(case: Case) -> tuple[Prepare, Run]:
        # As in an engine: on a GPU nothing waits for the device.
        on_bad_row: Any = "repair" if case.target.is_cuda else "raise"
        return engines.nothing, lambda _: verify(
            case.target, case.draft, case.sampling, method=method, backend=name, on_bad_row=on_bad_row
        )

    return Contender(name if method == "token" else f"{name} {method}", absent, make)


def _floor(case: Case) -> tuple[Prepare, Run]:
    logits = case.draft.logits
    assert logits is not None, "bench drafts are sampled"
    parts = [t.view(torch.int16 if t.shape[1] % 2 else torch.int32) for t in (case.target, logits)]
    wide = [t.view(torch.int64) if t.numel() * t.element_size() % 8 == 0 else t for t in map(torch.flatten, parts)]
    return engines.nothing, lambda _: [t.sum() for t in wide]


def _needs(module: str, devices: tuple[str, ...]) -> Callable[[str], str | None]:
    def absent(device: str) -> str | None:
        if device not in devices:
            return f"not for {device}"
        return None if importlib.util.find_spec(module.partition(".")[0]) else f"{module} is not installed"

    return absent


CONTENDERS = [
    Contender("floor", lambda device: None, _floor),
    *(ours(name) for name in ("cuda", "triton", "cpu")),
    *(ours(name, "block") for name in ("cuda", "triton", "cpu")),
    Contender("vllm-v1", _needs("vllm", ("cpu", "cuda")), engines.vllm_v1),
    Contender("vllm-v2", _needs("vllm", ("cuda",)), engines.vllm_v2),
    Contender("sglang", _needs("sglang", ("cuda",)), engines.sglang),
    Contender("flashinfer", _needs("flashinfer", ("cuda",)), engines.flashinfer),
]
