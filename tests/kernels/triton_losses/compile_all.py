"""Compiles the row step with and without its optional tensors, for a GPU that need not be there; one line per binary.

Run as a process of its own, without TRITON_INTERPRET: `python compile_all.py sm_90 bf16`.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from specdec.kernels.triton_losses.row_step import row_step_kernel
from specdec.training.fused.triton import TILE, WARPS

KINDS = {"target_rows": "*i64", "temperatures": "*fp32", "alpha_out": "*fp32", "kl_out": "*fp32", "vocab": "i32"}


def compile_one(target: GPUTarget, logits: str, absent: tuple[str, ...], with_kl: bool) -> None:
    names = row_step_kernel.arg_names
    constants = {"WITH_KL": with_kl, "TILE": TILE, **dict.fromkeys(absent)}
    signature = {name: "constexpr" if name in constants else KINDS.get(name, logits) for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(row_step_kernel, signature, places)
    done = triton.compile(source, target=target, options={"num_warps": WARPS})
    print(f"sm_{target.arch}", logits, absent, with_kl, len(done.asm["cubin"]), done.metadata.shared, flush=True)


def main(target: str, dtype: str) -> None:
    gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    no_inputs = ("target_rows", "temperatures")
    compile_one(gpu, f"*{dtype}", (), True)
    compile_one(gpu, f"*{dtype}", ("kl_slopes",), False)
    compile_one(gpu, f"*{dtype}", ("alpha_slopes", *no_inputs), True)
    compile_one(gpu, f"*{dtype}", ("alpha_slopes", "kl_slopes", *no_inputs), False)


if __name__ == "__main__":
    main(*sys.argv[1:])
