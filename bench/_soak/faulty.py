"""Clients that do wrong: what is malformed is refused with the status that says so, who leaves is forgotten."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .calls import CHAT, COMPLETIONS, Call
from .material import MODEL_NAME, Material
from .served import long

FULL = {"model": MODEL_NAME, "prompt": [5, 6, 7], "max_tokens": 4}


def _asking(specdec: Any) -> dict[str, Any]:
    return {**FULL, "vllm_xargs": {"specdec": specdec if isinstance(specdec, str) else json.dumps(specdec)}}


# Each is refused with 400 unless it says otherwise.
REFUSED: dict[str, Call] = {
    name: replace(call, kind=f"refused, {name}")
    for name, call in {
        "no JSON": Call("", b'{"model": "tiny", "prompt": [1, 2', status=400),
        "bytes": Call("", bytes(range(256)), status=400),
        "a list": Call("", b"[1, 2, 3]", status=400),
        "empty": Call("", b"", status=400),
        "max_tokens a word": Call("", {**FULL, "max_tokens": "many"}, status=400),
        "prompt an object": Call("", {**FULL, "prompt": {"text": "x"}}, status=400),
        "no messages": Call("", {"model": MODEL_NAME, "max_tokens": 4}, CHAT, status=400),
        "temperature": Call("", {**FULL, "temperature": -1.0}, status=400),
        "top_p": Call("", {**FULL, "top_p": 7}, status=400),
        "n": Call("", {**FULL, "n": 0}, status=400),
        "logprobs": Call("", {**FULL, "logprobs": 10_000}, status=400),
        "token ids": Call("", {**FULL, "prompt": [5, 10**6]}, status=400),
        "regex": Call("", {**FULL, "structured_outputs": {"regex": "[unclosed"}}, status=400),
        "another model": Call("", {**FULL, "model": "nobody"}, status=404),
        "another path": Call("", FULL, "/v1/nothing", status=404),
        "specdec no JSON": Call("", _asking("{steer"), status=400),
        "specdec a number": Call("", {**FULL, "vllm_xargs": {"specdec": 5}}, status=400),
        "specdec unknown": Call("", _asking({"stear": []}), status=400),
        "specdec feature": Call("", _asking({"steer": [{"feature": 10**9, "add": 1}]}), status=400),
        "specdec strength": Call("", _asking({"steer": [{"feature": 1, "add": 1e30}]}), status=400),
        "specdec read": Call("", _asking({"read": {"top": 10**6}}), status=400),
        "specdec tenant": Call("", _asking({"tenant": "a b"}), status=400),
        "specdec in a stream": Call("", {**_asking({"stear": []}), "stream": True}, status=400),
        "specdec in chat": Call(
            "", {"model": MODEL_NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4,
                 "vllm_xargs": {"specdec": '{"figures": "yes please"}'}}, CHAT, status=400,
        ),
    }.items()
}  # fmt: skip


def refused(material: Material, rng: random.Random) -> Call:
    """One of REFUSED."""
    return rng.choice(list(REFUSED.values()))


def oversize(material: Material, rng: random.Random) -> Call:
    """More tokens than the model takes."""
    body = {**FULL, "prompt": [5] * (material.length + rng.randrange(1, 4000))}
    return Call("refused, oversize", body, status=400)


def broken_off(material: Material, rng: random.Random) -> Call:
    """A stream whose client goes after some of it."""
    call = long(material, rng, stream=True)
    return replace(call, kind="left, mid-stream", leave_events=rng.choice((1, 2, 5, 10)))


def impatient(material: Material, rng: random.Random) -> Call:
    """A client that goes after some time, whatever has come by then."""
    call = long(material, rng, stream=rng.random() < 0.5)
    return replace(call, kind="left, in time", leave_seconds=rng.choice((0.0, 0.01, 0.1, 0.5)))


def half_sent(material: Material, rng: random.Random) -> Call:
    """A client that goes while it sends."""
    data = json.dumps(FULL).encode()
    return Call("left, half sent", data, send=rng.randrange(len(data)), path=COMPLETIONS)


FAULTS: tuple[tuple[Callable[[Material, random.Random], Call], float], ...] = (
    (refused, 0.08), (oversize, 0.02), (broken_off, 0.08), (impatient, 0.06), (half_sent, 0.02),
)  # fmt: skip
