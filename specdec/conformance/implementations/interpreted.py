"""What Triton's interpreter lacks, for kernels that were written for a GPU."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np


class LibDevice:
    """The functions of triton.language.extra.libdevice that are used; the interpreter has none of them."""

    @staticmethod
    def log1p(x: Any) -> Any:
        core = importlib.import_module("triton.language.core")
        handle = importlib.import_module("triton.runtime.interpreter").TensorHandle
        with np.errstate(all="ignore"):
            return core.tensor(handle(np.log1p(x.handle.data), x.handle.dtype), x.type)


def allow_any_mask() -> None:
    """`mask & scalar` has an integer dtype in the interpreter, which its loads and stores refuse."""
    builder = importlib.import_module("triton.runtime.interpreter").InterpreterBuilder
    if getattr(builder, "takes_any_mask", False):
        return
    load, store = builder.create_masked_load, builder.create_masked_store

    def masked_load(self: Any, pointers: Any, mask: Any, *others: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return load(self, pointers, mask, *others)

    def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return store(self, pointers, value, mask, *others)

    builder.create_masked_load, builder.create_masked_store = masked_load, masked_store
    builder.takes_any_mask = True


def call_device_functions_directly() -> None:
    """The interpreter patches the whole language anew at each call of a device function. A launch has done so for
    triton.language; for what else a module's functions use, once is enough. Twice as fast."""
    module = importlib.import_module("triton.runtime.interpreter")
    patched: set[int] = set()

    def call(self: Any, *args: Any, **how: Any) -> Any:
        if id(self.fn.__globals__) not in patched:
            module._patch_lang(self.fn)
            patched.add(id(self.fn.__globals__))
        try:
            return self.rewrite()(*args, **how)
        except Exception as error:
            raise module.InterpreterError(repr(error)) from error

    module.InterpretedFunction.__call__ = call


class OneBlock:
    """A kernel that is launched with a BLOCK_SIZE no wider than the row, where it is one block anyway: far less to
    interpret. widest: the row's width."""

    def __init__(self, kernel: Any) -> None:
        self._kernel, self.widest = kernel, 1

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, BLOCK_SIZE: int, **how: Any) -> Any:
            needed = max(16, 1 << (self.widest - 1).bit_length())
            return self._kernel[grid](*args, BLOCK_SIZE=min(BLOCK_SIZE, needed), **how)

        return launch


def one_block_per_row(*modules: ModuleType) -> list[OneBlock]:
    """Replaces the kernels of `modules` that are launched with a BLOCK_SIZE; set `widest` of what comes back."""
    found = []
    for module in modules:
        for name, kernel in list(vars(module).items()):
            if "BLOCK_SIZE" in getattr(kernel, "arg_names", ()) and name.endswith("_kernel"):
                found.append(OneBlock(kernel))
                setattr(module, name, found[-1])
    return found
