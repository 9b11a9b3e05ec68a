"""Triton's interpreter, quick enough for tests."""

import inspect
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def patch_once() -> Callable[[], None]:
    """The interpreter replaces the functions of triton.language anew for every device function that is called, which
    takes most of its time: once per kernel does. Returns what undoes this."""
    original: Callable[[Any], Any] = interpreter._patch_lang

    @cache
    def language_of(module: str) -> list[ModuleType]:
        return [m for m in vars(sys.modules[module]).values() if inspect.ismodule(m) and m in (tl, tl.core)]

    def patch(function: Any) -> Any:
        modules = language_of(function.__module__)
        if modules and not any(tl.core.is_builtin(m.load) for m in modules):
            return interpreter._LangPatchScope()  # nothing to restore
        return original(function)

    interpreter._patch_lang = patch

    def undo() -> None:
        interpreter._patch_lang = original

    return undo
