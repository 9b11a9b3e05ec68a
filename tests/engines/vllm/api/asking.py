"""Asking a server through the OpenAI API, with something under "specdec" or without."""

import json
import urllib.request
from typing import Any

from specdec.demo.servers import Server


def ask(server: Server, path: str, asked: Any = None, **body: Any) -> bytes:
    """The answer as it comes; asked: what stands under "specdec", or None. Seeded, so that it can be asked again."""
    arguments = {"vllm_xargs": {"specdec": json.dumps(asked)}} if asked is not None else {}
    sampling = {"max_tokens": 20, "temperature": 1.0, "seed": 5, "ignore_eos": True}
    data = json.dumps({"model": "tiny", **sampling, **arguments, **body}).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


def events(answer: bytes) -> list[dict[str, Any]]:
    """Of a stream, which must have come to its end."""
    lines = [line.removeprefix("data: ") for line in answer.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
