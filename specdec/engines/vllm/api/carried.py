"""What a request carries behind admission: specdec/request.py."""

from functools import lru_cache
from typing import Any

from specdec.answer import wants_answer
from specdec.request import Request, parse_request
from specdec.steering.program import Program
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


def answer_of(params: Any) -> Request | None:
    """The request, where its answer is to hold something of ours."""
    request = request_of(params)
    return request if wants_answer(request) else None


def read_of(params: Any) -> Read | None:
    """What it reads."""
    request = request_of(params)
    return None if request is None else request.read
