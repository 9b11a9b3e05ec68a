# csrc/bindings.cpp. Addresses are data_ptr()s, rows (address, row stride in elements, dtype code), faults
# (enum Fault of csrc/cpu/api.h, request, row) or None.
from collections.abc import Sequence

import numpy as np

_Rows = tuple[int, int, int]
_Fault = tuple[int, int, int] | None

def verify_token(
    vocab: int,
    target: _Rows,
    counts: list[int],
    tokens: int,
    tokens_are_int64: bool,
    draft: _Rows,
    stats: int,
    draft_rows: int,
    sampling: tuple[int, ...],
    out_tokens: int,
    out_width: int,
    out_accepted: int,
    out_expected: int,
    out_accept_probs: int,
    out_bad_rows: int,
    max_threads: int,
    /,
) -> _Fault: ...
def verify_block(
    vocab: int,
    target: _Rows,
    counts: list[int],
    tokens: int,
    tokens_are_int64: bool,
    draft: _Rows,
    stats: int,
    draft_rows: int,
    sampling: tuple[int, ...],
    out_tokens: int,
    out_width: int,
    out_accepted: int,
    out_expected: int,
    out_accept_probs: int,
    out_bad_rows: int,
    max_threads: int,
    /,
) -> _Fault: ...
def sample_draft(
    num_requests: int,
    vocab: int,
    step: int,
    logits: _Rows,
    sampling: tuple[int, ...],
    out_tokens: int,
    out_stats: int,
    max_threads: int,
    /,
) -> _Fault: ...
def first_outside(numbers: int, n: int, low: int, high: int, /) -> int | None: ...
def philox_uniform(seed: int, position: int, purpose: int, /) -> float: ...
def use_openmp(parallel: int, /) -> None: ...
def select_isa(name: str, /) -> None: ...
def isa() -> str: ...

class StepCells:
    """csrc/metrics/step_cells.h, on cells float64 [n] that fields begin in, by name."""

    def __init__(self, cells: np.ndarray, positions: int, begins: dict[str, int], /) -> None: ...
    def add(
        self,
        counts: Sequence[int] | np.ndarray,
        accepted: np.ndarray,
        probability: np.ndarray,
        unfinished: np.ndarray | None,
        mine: np.ndarray | None,
        /,
    ) -> None:
        """ValueError where figures do not fit together."""
