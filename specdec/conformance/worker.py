"""The process in which one implementation is tested: it may change global state, crash, or never return.

    python -m specdec.conformance.worker IMPLEMENTATION CHECK...

writes two JSON lines per check to the file descriptor in SPECDEC_CONFORMANCE_FD: {"check": ..., "state": "started"},
and the result as soon as it is known. Standard output and errors are the implementation's own.
"""

import json
import os
import sys
from typing import Any, TextIO

FD = "SPECDEC_CONFORMANCE_FD"


def main(arguments: list[str]) -> None:
    name, *checks = arguments
    with os.fdopen(int(os.environ[FD]), "w", buffering=1) as out:
        import torch

        torch.set_num_threads(1)
        from specdec.conformance.checks import CHECKS
        from specdec.conformance.registry import load
        from specdec.conformance.run import run_check

        try:
            implementation = load(name)
        except Exception as error:
            _write(out, {"state": "absent", "detail": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
            return
        for check in checks:
            _write(out, {"state": "started", "check": check})
            _write(out, run_check(name, implementation, CHECKS[check]).as_dict())


def _write(out: TextIO, content: dict[str, Any]) -> None:
    out.write(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
