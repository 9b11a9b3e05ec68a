"""What a request carries behind admission: a steering program, what it reads, or both."""

from functools import lru_cache
from typing import Any

from specdec.steering.program import Program, Request, parse_request
from specdec.steering.reading import Read

KEY = "specdec"


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Request:
    return parse_request(text)


def request_of(params: Any) -> Request | None:
    """params: SamplingParams, or what stands there for pooling requests."""
    text = (getattr(params, "extra_args", None) or {}).get(KEY)
    return None if text is None else _parsed(text)


def program_of(params: Any) -> Program | None:
    """What it steers with."""
    request = request_of(params)
    return None if request is None else request.steer


def read_of(params: Any) -> Read | None:
    """What it reads."""
    request = request_of(params)
    return None if request is None else request.read
