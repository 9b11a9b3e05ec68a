"""The kernels under test: compiled for the host too, and told how to split rows."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import VerifyOutput
from specdec.verify.cuda import Kernels
from specdec.verify.types import OnBadRow, VerifyInput

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
KERNELS = ROOT / "kernels" / "cuda"
FLAGS = "-std=c++17 -O2 -U_FORTIFY_SOURCE -fPIC -fno-semantic-interposition -shared -Wall -Wextra -DSPECDEC_EMULATION"


def build_emulation(folder: Path) -> Path:
    """The library in `folder`, made there unless another process has: the kernels, tests/kernels/cuda/faults.cu and the
    emulation of CUDA, compiled for the host."""
    library = folder / "libspecdec_cuda_emulated.so"
    with (folder / "emulation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            compile_for_host([KERNELS / "library.cu", HERE / "faults.cu", HERE / "emulation.cpp"], library)
    return library


def compile_for_host(sources: list[Path], library: Path) -> None:
    """As one translation unit: the standard library's headers take longer than our sources."""
    includes = [f"-I{folder}" for folder in (ROOT / "kernels", ROOT / "csrc", HERE)]
    command = ["g++", *FLAGS.split(), '-DSPECDEC_CUDA_ARCHITECTURES="emulation"', *includes, "-x", "c++", "-"]
    unit = "".join(f'#include "{source}"\n' for source in sources)
    result = subprocess.run([*command, "-o", str(library)], input=unit, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, f"warnings:\n{result.stderr}"


def why_no_emulation() -> str | None:
    if shutil.which("g++") is None:
        return "no g++"
    return None if KERNELS.is_dir() else "the kernels' sources are not here"


class Split:
    """The kernels as a backend that splits rows in one way, whatever suits the device.

    team: thread blocks to a row; shared_bytes: what each may use, 0: as suits the device.
    """

    def __init__(self, kernels: Kernels, team: int = 0, shared_bytes: int = 0):
        self._kernels, self._limits = kernels, (team, shared_bytes)

    def problem(self) -> None:
        return None

    def accepts(self, device: torch.device) -> bool:
        return True

    def verify_token(self, given: VerifyInput) -> VerifyOutput:
        self._kernels.limit(*self._limits)
        return self._kernels.verify("verify_token", given)

    def verify_block(self, given: VerifyInput) -> VerifyOutput:
        self._kernels.limit(*self._limits)
        return self._kernels.verify("verify_block", given)

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]:
        self._kernels.limit(*self._limits)
        return self._kernels.sample_draft(logits, sampling, step, on_bad_row)
