"""Installs the CPU build of one PyTorch release into the interpreter that runs this: python install_torch.py 2.13.0

The configured package index is asked first. Where its wheel is a CUDA build (several GB, of no use to a CPU engine), or
it has none, the wheel comes from PyTorch's own index of CPU builds. The dependencies are in the lock file.
"""

import importlib.metadata
import json
import re
import subprocess
import sys

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]


def needs_cuda(requirements: list[str]) -> bool:
    """Whether a wheel's requirements name NVIDIA's libraries: CPU builds have none."""
    return any(re.match(r"(nvidia|cuda)[-_]", requirement) for requirement in requirements)


def installed(version: str) -> bool:
    """Whether a CPU build of that version is installed already."""
    try:
        found = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return found.version.partition("+")[0] == version and not needs_cuda(found.requires or [])


def offered_cpu_build(version: str) -> bool:
    """Whether the configured index offers a CPU build; nothing is installed."""
    asked = subprocess.run([*PIP, "--quiet", "--dry-run", "--ignore-installed", "--report", "-", f"torch=={version}"],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    if asked.returncode != 0:
        return False
    offer = json.loads(asked.stdout)["install"][0]["metadata"]
    print(f"torch: the configured package index offers {offer['version']}", flush=True)
    return not needs_cuda(offer.get("requires_dist", []))


def main(version: str) -> int:
    if installed(version):
        print(f"torch: {version} (CPU build) is installed", flush=True)
        return 0
    if offered_cpu_build(version) and subprocess.run([*PIP, f"torch=={version}"]).returncode == 0:
        return 0
    print(f"torch: no CPU build there, taking it from {CPU_INDEX}", flush=True)
    status = subprocess.run([*PIP, "--force-reinstall", "--index-url", CPU_INDEX, f"torch=={version}"]).returncode
    if status != 0:
        print(
            f"torch: no CPU build of torch {version} could be installed from the configured index or {CPU_INDEX}",
            file=sys.stderr,
        )
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python install_torch.py VERSION")
    sys.exit(main(sys.argv[1]))
