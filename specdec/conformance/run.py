"""One check on one implementation."""

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from specdec.conformance.base import Check, Implementation, Violation

State = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, slots=True)
class Result:
    """detail: what was measured, what is wrong, or why the check does not apply."""

    implementation: str
    check: str
    state: State
    detail: str
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_check(name: str, implementation: Implementation, check: Check) -> Result:
    """`name`: what the implementation is called in the table. Never raises: a crash is a failure."""
    missing = check.missing(implementation)
    if missing is not None:
        return Result(name, check.name, "not applicable", missing)
    torch.manual_seed(0)
    started = time.perf_counter()
    state: State = "passed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            detail = check.run(implementation)
        except Violation as violation:
            state, detail = "failed", str(violation)
        except Exception as error:  # somebody else's code: whatever it raises is its result
            state, detail = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Result(name, check.name, state, detail, round(time.perf_counter() - started, 2))
