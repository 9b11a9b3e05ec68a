"""Compiles the kernel with and without its optional tensors, for a GPU that need not be there; one line per binary.

Run as a process of its own, without TRITON_INTERPRET: `python compile_all.py sm_90 bf16`.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from specdec.kernels.triton_steering.change import change_kernel
from specdec.steering.change import READ, WRITE

KINDS = {"slots": "*i32", "counts": "*i32", "hidden": None, "residual": None}


def compile_one(target: GPUTarget, stream: str, width: int, num_topk: int, split: bool) -> None:
    names = change_kernel.arg_names
    constants = {
        "WIDTH": width, "MAX_EDITS": 8, "READ": READ, "WRITE": WRITE, "NUM_TOPK": num_topk,
        "BLOCK": triton.next_power_of_2(width),
    }  # fmt: skip
    constants |= {} if num_topk else {"thresholds": None}
    constants |= {} if split else {"residual": None}
    signature = {n: "constexpr" if n in constants else KINDS.get(n, "*fp32") or stream for n in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    done = triton.compile(ASTSource(change_kernel, signature, places), target=target, options={"num_warps": 8})
    print(f"sm_{target.arch}", stream, width, num_topk, split, len(done.asm["cubin"]), done.metadata.shared, flush=True)


def main(target: str, dtype: str) -> None:
    gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    compile_one(gpu, f"*{dtype}", 4096, 0, True)
    compile_one(gpu, f"*{dtype}", 8192, 2, True)
    compile_one(gpu, f"*{dtype}", 96, 0, False)


if __name__ == "__main__":
    main(*sys.argv[1:])
