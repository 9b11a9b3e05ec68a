"""The implementations by name: where each is, and whether it can run here. None is imported before it is asked for."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from specdec.conformance.base import Implementation
from specdec.engines.installed import find_vllm, version_of
from specdec.errors import SpecdecError


@dataclass(frozen=True)
class Source:
    """target: "package.module:factory", called with `arguments`. absent: why it cannot be imported here, or None.
    distribution: what its version is read from."""

    target: str
    arguments: tuple[str, ...] = ()
    absent: Callable[[], str | None] = lambda: None
    distribution: Callable[[], str | None] = lambda: "specdec"
    environment: tuple[tuple[str, str], ...] = ()  # of the process that it runs in
    by_default: bool = True  # tested where nothing is named

    def version(self) -> str | None:
        name = self.distribution()
        return None if name is None else version_of(name)


def _vllm() -> str | None:
    engine = find_vllm()
    return None if engine is None else engine.distribution


def _needs_vllm() -> str | None:
    return "vLLM is not installed here" if find_vllm() is None else None


def _needs_vllm_and_triton() -> str | None:
    return _needs_vllm() or _needs_module("triton")


def _needs_module(name: str) -> str | None:
    return None if importlib.util.find_spec(name) else f"{name} is not installed here"


def _needs_flashinfer() -> str | None:
    import torch

    return _needs_module("flashinfer") or (None if torch.cuda.is_available() else "it needs a GPU, and there is none")


INTERPRETER = (("TRITON_INTERPRET", "1"),)
_OURS = "specdec.conformance.implementations.ours:Ours"

OTHERS: dict[str, Source] = {
    "vllm-v1": Source(
        "specdec.engines.vllm.conformance_v1:VllmV1", absent=_needs_vllm, distribution=_vllm,
        environment=(("VLLM_LOGGING_LEVEL", "ERROR"),),
    ),
    "vllm-v1-mended": Source(
        "specdec.engines.vllm.conformance_v1:Mended", absent=_needs_vllm, distribution=_vllm,
        environment=(("VLLM_LOGGING_LEVEL", "ERROR"),),
    ),
    "vllm-v2": Source(
        "specdec.engines.vllm.conformance_v2:VllmV2", absent=_needs_vllm_and_triton, distribution=_vllm,
        environment=(*INTERPRETER, ("VLLM_LOGGING_LEVEL", "ERROR")),
    ),
    "sglang": Source(
        "specdec.engines.sglang.conformance:SglangChain", absent=lambda: _needs_module("sglang"),
        distribution=lambda: "sglang", environment=INTERPRETER,
    ),
    "flashinfer": Source(
        "specdec.conformance.implementations.flashinfer:FlashInferChain", absent=_needs_flashinfer,
        distribution=lambda: "flashinfer-python",
    ),
}  # fmt: skip


def sources() -> dict[str, Source]:
    """Ours first, then the others, importable or not. Triton without a GPU runs under the interpreter: many minutes."""
    import torch

    from specdec.verify import backends

    ours = {name: Source(_OURS, (name,)) for name in backends()}
    if not torch.cuda.is_available():
        absent = partial(_needs_module, "triton")
        ours["triton"] = Source(_OURS, ("triton",), absent, environment=INTERPRETER, by_default=False)
    return ours | OTHERS


def source(name: str) -> Source:
    """A known name, or "package.module:factory" of somebody's own. Raises SpecdecError."""
    if ":" in name:
        return Source(name, distribution=lambda: None)
    known = sources()
    if name not in known:
        raise SpecdecError(
            f"Unknown implementation {name!r}: use one of {', '.join(known)}, or package.module:factory of your own."
        )
    return known[name]


def load(name: str) -> Implementation:
    """Imports and makes the implementation. Raises SpecdecError where there is none of that name."""
    where = source(name)
    module, _, factory = where.target.partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise SpecdecError(f"Cannot load the implementation {name!r} from {where.target!r}: {error}.") from error
    made = make(*where.arguments)
    if not isinstance(made, Implementation):
        raise SpecdecError(
            f"{where.target!r} makes a {type(made).__name__}: it must make a specdec.conformance.base.Implementation."
        )
    return made
