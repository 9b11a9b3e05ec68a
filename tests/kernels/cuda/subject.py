"""The kernels under test as a backend that takes CPU tensors, whatever they run on."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput
from specdec.verify.backends import OnBadRow
from specdec.verify.cuda import Kernels

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
KERNELS = ROOT / "kernels" / "cuda"
FLAGS = ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wall", "-Wextra", "-DSPECDEC_EMULATION"]

T = TypeVar("T", Draft, SamplingBatch, VerifyOutput)


def build_emulation(folder: Path, *sources: Path) -> Path:
    """A library of `sources` and the emulation of CUDA, compiled for the host."""
    library = folder / "libspecdec_cuda_emulated.so"
    includes = [f"-I{folder}" for folder in (ROOT / "kernels", ROOT / "csrc", HERE)]
    command = ["g++", *FLAGS, '-DSPECDEC_CUDA_ARCHITECTURES="emulation"', *includes, "-x", "c++"]
    result = subprocess.run(
        [*command, *map(str, sources), str(HERE / "emulation.cpp"), "-o", str(library)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr, f"warnings:\n{result.stderr}"
    return library


def why_no_emulation() -> str | None:
    if shutil.which("g++") is None:
        return "no g++"
    return None if KERNELS.is_dir() else "the kernels' sources are not here"


@dataclass
class Subject:
    """team: thread blocks to a row; shared_bytes: what each may use, 0: as suits the device."""

    kernels: Kernels
    device: torch.device
    team: int = 0
    shared_bytes: int = 0

    def available(self) -> bool:
        return True

    def accepts(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def verify_token(
        self,
        target_logits: Tensor,
        draft: Draft,
        sampling: SamplingBatch,
        counts: list[int],
        expected_acceptance: bool,
        on_bad_row: OnBadRow,
    ) -> VerifyOutput:
        return self._verify("verify_token", target_logits, draft, sampling, counts, expected_acceptance, on_bad_row)

    def verify_block(
        self,
        target_logits: Tensor,
        draft: Draft,
        sampling: SamplingBatch,
        counts: list[int],
        expected_acceptance: bool,
        on_bad_row: OnBadRow,
    ) -> VerifyOutput:
        return self._verify("verify_block", target_logits, draft, sampling, counts, expected_acceptance, on_bad_row)

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]:
        self.kernels.limit(self.team, self.shared_bytes)
        on_device = each_tensor(sampling, self._there)
        tokens, stats = self.kernels.sample_draft(self._there(logits), on_device, step, on_bad_row)
        return tokens.cpu(), stats.cpu()

    def _verify(
        self,
        function: str,
        target: Tensor,
        draft: Draft,
        sampling: SamplingBatch,
        counts: list[int],
        expected_acceptance: bool,
        on_bad_row: OnBadRow,
    ) -> VerifyOutput:
        self.kernels.limit(self.team, self.shared_bytes)
        there = [each_tensor(one, self._there) for one in (draft, sampling)]
        target = self._there(target)
        out = self.kernels.verify(function, target, *there, counts, expected_acceptance, on_bad_row)
        return each_tensor(out, Tensor.cpu)

    def _there(self, tensor: Tensor) -> Tensor:
        """On the device, with the same strides and the same distance from an aligned address."""
        if self.device.type == "cpu":
            return tensor
        extent = (
            sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1 if tensor.numel() else 0
        )
        shift = tensor.data_ptr() % 16 // tensor.element_size()
        memory = torch.empty(shift + extent, dtype=tensor.dtype, device=self.device)
        return memory[shift:].as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def each_tensor(one: T, change: Callable[[Tensor], Tensor]) -> T:
    """`one` with each of its tensors changed."""
    values = {field.name: getattr(one, field.name) for field in fields(one)}
    return replace(one, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})
