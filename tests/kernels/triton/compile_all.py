"""Compiles every launch of the triton backend for a GPU that need not be there; prints one line per binary.

Run as a process of its own, without TRITON_INTERPRET: `python compile_all.py sm_90 bfloat16 151936:every 1`. The
backend runs on CPU tensors, but its launches end behind the compiler: signature, constants, alignment are real.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from specdec.kernels.triton import launches
from specdec.sampling import SamplingBatch
from specdec.verify import Draft
from specdec.verify import triton as backend
from specdec.verify.types import VerifyInput


@dataclass
class Compiler:
    """Stands in for a kernel."""

    kernel: Any
    target: str

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            done = self.kernel.warmup(*args, grid=grid, **constants)
            print(self.kernel.__name__, self.target, len(done.asm["cubin"]), "bytes", flush=True)

        return launch


def compile_launches(vocab: int, dtype: torch.dtype, every_kind: bool) -> None:
    """A request with drafts and one without. every_kind: of drafts, and every branch of a kernel on a constant; else
    the kind that takes most launches, with all that a step can ask for."""
    counts, n = [2, 0], 2
    target, logits = torch.zeros(n + 2, vocab, dtype=dtype), torch.zeros(5, vocab, dtype=dtype)
    stats, rows = torch.zeros(5, 4, dtype=torch.float64), torch.tensor([3, 0])
    sampling = SamplingBatch.uniform(2)
    without_stats = Draft(torch.zeros(n, dtype=torch.int32), counts, logits[:n])
    backend.verify_block(VerifyInput(target, without_stats, sampling, counts, True, "repair"))
    backend.sample_draft(target[:2], sampling, 1, "repair")
    if every_kind:
        with_stats = Draft(torch.zeros(n, dtype=torch.int64), counts, logits, stats, rows)
        one_hot = Draft(torch.zeros(n, dtype=torch.int32), counts)
        for draft in (with_stats, one_hot):
            backend.verify_token(VerifyInput(target, draft, sampling, counts, False, "repair"))
        backend.verify_block(VerifyInput(target, with_stats, sampling, counts, True, "repair"))


def main(target: str, dtype: str, *vocabularies: str) -> None:
    gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    driver = {"get_current_target": lambda: gpu, "get_current_device": lambda: 0, "get_current_stream": lambda _: 0}
    triton.runtime.driver.set_active(SimpleNamespace(**driver))
    for name in launches.__all__:
        setattr(launches, name, Compiler(getattr(launches, name), target))
    for argument in vocabularies:
        vocab, _, kinds = argument.partition(":")
        compile_launches(int(vocab), getattr(torch, dtype), kinds == "every")


if __name__ == "__main__":
    main(*sys.argv[1:])
