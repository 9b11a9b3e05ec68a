"""Compiles every kernel of kernels/triton/ for a GPU that need not be there; prints one line per binary.

Run as a process of its own, without TRITON_INTERPRET: `python compile_all.py sm_90 bf16`.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from specdec.kernels.triton import launches
from specdec.verify.triton import _ROW_WARPS, _SHIFT, _TILE_WARPS, CAPACITY, GROUP, TILE

SHIFT = {"bf16": _SHIFT[torch.bfloat16], "fp16": _SHIFT[torch.float16], "fp32": _SHIFT[torch.float32]}
INT32 = ("first_row", "request_of_row", "top_k", "group_bad", "tokens", "num_accepted", "bad_row", "bad")
INT64 = ("draft_rows", "seed", "position", "token_ids")
FLOAT64 = ("draft_stats", "tile_sum", "facts", "scratch", "tile_overlap", "stats")
FLOAT32 = ("temperature", "top_p", "min_p", "tile_max", "probability", "alpha")
# What a launch makes constant: an integer of 1 is one. Strides may need 64 bits.
ONE = ("vocab", "tiles", "groups", "num_rows", "width", "purpose", "stride", "target_stride")


def kinds(logits: str) -> dict[str, str]:
    tables = ((INT32, "*i32"), (INT64, "*i64"), (FLOAT64, "*fp64"), (FLOAT32, "*fp32"))
    known = {name: kind for names, kind in tables for name in names}
    return known | {"logits": logits, "target": logits, "draft_logits": logits}


def compile_one(kernel: Any, logits: str, target: GPUTarget, constants: dict[str, Any], warps: int) -> None:
    known = kinds(logits)
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {n: "constexpr" if n in constants else known.get(n, "i32") for n in kernel.arg_names}
    for wide in ("stride", "target_stride", "draft_stride"):
        if signature.get(wide) == "i32":
            signature[wide] = "i64"
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    done = triton.compile(ASTSource(kernel, signature, places), target=target, options={"num_warps": warps})
    print(kernel.__name__, f"sm_{target.arch}", logits, len(done.asm["cubin"]), done.metadata.shared, flush=True)


def variants(logits: str, shift: int) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """Kernel, constants and warps of every way in which the backend launches it."""
    size = {"TILE": TILE, "GROUP": GROUP, "TILES": 512, "GROUPS": 64, "CAPACITY": CAPACITY, "SHIFT": shift, "DRAFTS": 4}
    no_rows = dict.fromkeys(("draft_rows", "draft_stats", "draft_logits", "tile_overlap", "alpha"))
    plain = {"IS_DRAFT": False, "HAS_ROWS": True, "BAD_IS_POINT": False, "BLOCK": False}
    for is_draft in (False, True):
        yield launches.tile_statistics, size | plain | {"IS_DRAFT": is_draft}, _TILE_WARPS
        yield launches.row_statistics, size | plain | {"IS_DRAFT": is_draft}, _ROW_WARPS
    yield launches.row_statistics, size | plain | {"draft_stats": None, "draft_rows": None}, _ROW_WARPS
    smallest = size | plain | {"TILES": 1, "GROUP": 1, "GROUPS": 1, "CAPACITY": 1, "DRAFTS": 1} | dict.fromkeys(ONE, 1)
    alone = no_rows | {"HAS_ROWS": False, "BAD_IS_POINT": True}
    yield launches.tile_statistics, smallest | no_rows, _TILE_WARPS
    for sizes in (size | plain, smallest):
        yield launches.row_statistics, sizes | alone, _ROW_WARPS
        yield launches.emit_draft, sizes, _TILE_WARPS
    for kernel, block in itertools.product((launches.tile_residuals, launches.emit), (False, True)):
        yield kernel, size | plain | {"BLOCK": block}, _TILE_WARPS
        yield kernel, size | plain | {"BLOCK": block, "tile_overlap": None, "alpha": None}, _TILE_WARPS
        yield kernel, smallest | no_rows | {"BLOCK": block}, _TILE_WARPS


def main(target: str, dtype: str) -> None:
    gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    for kernel, constants, warps in variants(f"*{dtype}", SHIFT[dtype]):
        compile_one(kernel, f"*{dtype}", gpu, constants, warps)


if __name__ == "__main__":
    main(*sys.argv[1:])
