"""Triton's interpreter, for kernels where there is no GPU."""

import importlib

import pytest


def import_interpreted(module: str) -> None:
    """Imports a module whose kernels then run on CPU tensors: that is chosen where a kernel is defined, so nothing may
    have imported them before. No child process must find the variable.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module(module)
        importlib.import_module("triton.experimental.gluon")  # a launch would import it, and look for the variable
