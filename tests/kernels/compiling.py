"""The compiler's own view of kernels: the interpreter lets pass what it does not."""

import os
import subprocess
import sys
from pathlib import Path


def compiled(folder: Path, *arguments: str) -> list[str]:
    """What `compile_all.py` of that folder prints, a line for each binary, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(folder / "compile_all.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()
