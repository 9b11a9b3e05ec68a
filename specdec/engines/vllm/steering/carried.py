"""The program that a request carries behind admission."""

from functools import lru_cache
from typing import Any

from specdec.steering.program import Program, parse_canonical

KEY = "specdec"


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Program:
    return parse_canonical(text)


def program_of(params: Any) -> Program | None:
    """params: SamplingParams, or what stands there for pooling requests."""
    text = (getattr(params, "extra_args", None) or {}).get(KEY)
    return None if text is None else _parsed(text)
