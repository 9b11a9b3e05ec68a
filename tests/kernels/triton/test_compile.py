"""The compiler's own view of the kernels: the interpreter lets pass what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("compile_all.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dtype", "vocabularies"),
    [
        ("sm_90", "bfloat16", ["151936:every", "1"]),
        ("sm_80", "float32", ["151936"]),
        ("sm_90", "float16", ["4096", "300"]),  # a row of fewer tokens than a search holds, of no multiple of 16
    ],
)
def test_every_kernel_compiles(target: str, dtype: str, vocabularies: list[str]):
    """For GPUs that are not here; half a minute, unless Triton's cache knows the kernels. In a launch, an integer of 1
    is a constant: hence the smallest vocabulary."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(CHILD), target, dtype, *vocabularies]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert {line.split()[0] for line in done.stdout.splitlines()} == {
        "emit", "emit_draft", "row_statistics", "tile_residuals", "tile_statistics"
    }  # fmt: skip
