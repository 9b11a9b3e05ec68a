"""Triton's interpreter, quick enough for tests."""

import inspect
from collections.abc import Callable
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def patch_once() -> Callable[[], None]:
    """The interpreter replaces the functions of triton.language anew for every device function that is called, which
    takes most of its time: once per kernel does. Returns what undoes this."""
    original: Callable[[Any], Any] = interpreter._patch_lang

    def patch(function: Any) -> Any:
        modules = [m for m in function.__globals__.values() if inspect.ismodule(m) and m in (tl, tl.core)]
        if modules and not any(tl.core.is_builtin(m.load) for m in modules):
            return interpreter._LangPatchScope()  # nothing to restore
        return original(function)

    interpreter._patch_lang = patch

    def undo() -> None:
        interpreter._patch_lang = original

    return undo
