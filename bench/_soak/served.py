"""Requests that are right, and must be served: every way of sampling, steering, reading, figures, tenants."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

from .calls import CHAT, COMPLETIONS, Call, Reply
from .material import MODEL_NAME, SAE_NAME, Material

Make = Callable[[Material, random.Random], dict[str, Any]]
AUDITED = "audited"  # the tenant whose every request asks for its figures, and leaves nothing early
TENANTS = (AUDITED, "a", "b", "c", "d", "e")  # more than the server tells apart
DIGITS = "[0-9]{3}-[0-9]{2}"
SCHEMA = {
    "type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "yes": {"type": "boolean"}},
    "required": ["kind", "yes"], "additionalProperties": False,
}  # fmt: skip


def _random_bias(material: Material, rng: random.Random) -> dict[str, Any]:
    return {"logit_bias": {str(rng.randrange(1000)): rng.choice((-100, -5, 5)) for _ in range(4)}, "temperature": 1.0}


WAYS: dict[str, Make] = {
    "greedy": lambda m, r: {"temperature": 0.0},
    "temperature": lambda m, r: {"temperature": r.choice((0.3, 0.7, 1.0, 1.5))},
    "top-k": lambda m, r: {"temperature": 1.0, "top_k": r.choice((1, 5, 50))},
    "top-p": lambda m, r: {"temperature": 0.8, "top_p": r.choice((0.1, 0.9, 0.95))},
    "min-p": lambda m, r: {"temperature": 1.0, "min_p": r.choice((0.02, 0.2))},
    "all filters": lambda m, r: {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    "seed": lambda m, r: {"temperature": 1.0, "seed": r.randrange(2**40)},
    "penalties": lambda m, r: {
        "temperature": 1.0, "presence_penalty": 0.5, "frequency_penalty": 0.3, "repetition_penalty": 1.1
    },
    "n=2": lambda m, r: {"temperature": 1.0, "n": 2},
    "stop strings": lambda m, r: {"temperature": 1.0, "stop": ["\n\n", "def "], "ignore_eos": False},
    "end of text": lambda m, r: {"temperature": 1.0, "ignore_eos": False, "stop_token_ids": [200, 201, 202]},
    "logit bias": _random_bias,
    "bad words": lambda m, r: {"temperature": 1.0, "bad_words": ["self", "import os"]},
    "allowed tokens": lambda m, r: {"temperature": 1.0, "allowed_token_ids": list(range(300, 340))},
    "min tokens": lambda m, r: {"temperature": 1.0, "min_tokens": 8, "max_tokens": 48, "ignore_eos": False},
}  # fmt: skip


def _asked(material: Material, rng: random.Random) -> dict[str, Any]:
    """Something under "specdec": a program, a reading, figures, a tenant."""
    found: dict[str, Any] = {}
    if rng.random() < 0.5:
        feature, change = rng.randrange(material.features), rng.choice(("add", "scale", "clamp", "cap"))
        found["steer"] = [{"sae": SAE_NAME, "feature": feature, change: rng.choice((-200, -2, 0.5, 3, 150))}]
        found["on"] = rng.choice(("all", "generated"))
    if rng.random() < 0.4:
        some = sorted(rng.sample(range(material.features), 3))
        found["read"] = {**rng.choice(({"features": some}, {"top": 4})), "prompt": rng.random() < 0.3}
    if not found or rng.random() < 0.4:
        found["figures"] = True
    if rng.random() < 0.4:
        found["tenant"] = rng.choice(TENANTS[1:])
    return found


def _body(material: Material, rng: random.Random, path: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": MODEL_NAME, "max_tokens": rng.choice((1, 2, 8, 24, 48, 96)), "ignore_eos": True}
    if path == CHAT:
        return {**body, "messages": material.messages(rng)}
    return {**body, "prompt": material.prompt(rng)}


def _streamed(body: dict[str, Any], stream: bool) -> dict[str, Any]:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    return {**body, "stream": True, "stream_options": usage} if stream else body


def plain(material: Material, rng: random.Random) -> Call:
    """One of WAYS, over completions or chat, perhaps with log probabilities, perhaps with something of ours."""
    return _call(material, rng, {}, rng.random() < 0.6)


def long(material: Material, rng: random.Random, stream: bool) -> Call:
    """The same, of many tokens."""
    return _call(material, rng, {"max_tokens": 200}, stream)


def _call(material: Material, rng: random.Random, more: dict[str, Any], stream: bool) -> Call:
    path, way = rng.choice((COMPLETIONS, COMPLETIONS, CHAT)), rng.choice(list(WAYS))
    body = _streamed({**_body(material, rng, path), **WAYS[way](material, rng), **more}, stream)
    if rng.random() < 0.2:
        body.update({"logprobs": True, "top_logprobs": 3} if path == CHAT else {"logprobs": 3})
    asked = _asked(material, rng) if rng.random() < 0.35 else {}
    if asked:
        body["vllm_xargs"] = {"specdec": json.dumps(asked)}
    kind = way if path == COMPLETIONS else f"chat, {way}"

    def check(reply: Reply) -> str | None:
        return _counts(body, reply) or _extras(body, asked, reply)

    return Call(kind, body, path, check=check, tenant=asked.get("tenant"))


def _counts(body: dict[str, Any], reply: Reply) -> str | None:
    n, most = body.get("n", 1), body["max_tokens"]
    if len(reply.choices) != n:
        return f"{len(reply.choices)} choices came where {n} were asked for"
    reasons = {choice.finish for choice in reply.choices.values()}
    if not reasons <= {"stop", "length"}:
        return f"it ended for {sorted(map(str, reasons))}"
    ends_by_length = body["ignore_eos"] and "stop_token_ids" not in body
    wrong = reply.tokens != n * most if ends_by_length else not 0 < reply.tokens <= n * most
    return f"{reply.tokens} tokens came where {n} × {most} were asked for" if wrong else None


def _extras(body: dict[str, Any], asked: dict[str, Any], reply: Reply) -> str | None:
    """Log probabilities, readings and figures are there, of as many tokens as came."""
    choices = reply.choices.values()
    if body.get("logprobs") and not body.get("stop") and sum(c.logprobs for c in choices) != reply.tokens:
        return f"{sum(c.logprobs for c in choices)} log probabilities came with {reply.tokens} tokens"
    wanted = {name for name in ("read", "figures") if asked.get(name)}
    if any(set(choice.specdec) != wanted for choice in choices):
        return f"{sorted(wanted)} was asked for under specdec, and {[sorted(c.specdec) for c in choices]} came"
    if "read" in wanted and sum(c.entries for c in choices) != reply.tokens:
        return f"activations of {sum(c.entries for c in choices)} tokens came with {reply.tokens}"
    if "figures" in wanted and sum(c.specdec["figures"]["tokens"] for c in choices) != reply.tokens:
        return f"figures of {[c.specdec['figures']['tokens'] for c in choices]} tokens came with {reply.tokens}"
    return None


def audited(material: Material, rng: random.Random) -> Call:
    """Of the tenant whose counters must be, in the end, the sums of its requests' figures."""
    body = {**_body(material, rng, COMPLETIONS), "temperature": rng.choice((0.0, 1.0))}
    asked = {"figures": True, "tenant": AUDITED}
    body = _streamed({**body, "vllm_xargs": {"specdec": json.dumps(asked)}}, rng.random() < 0.6)
    return Call(
        "audited", body, tenant=AUDITED, check=lambda reply: _counts(body, reply) or _extras(body, asked, reply)
    )


def grammar(material: Material, rng: random.Random) -> Call:
    """Text that a regular expression, a list of choices or a schema must accept."""
    which = rng.choice(("regex", "choice", "json"))
    outputs: dict[str, Any] = {"regex": DIGITS} if which == "regex" else {"choice": ["yes", "no", "perhaps"]}
    if which == "json":
        outputs = {"json": SCHEMA}
    body = {**_body(material, rng, COMPLETIONS), "max_tokens": 64, "ignore_eos": False, "temperature": 1.0}
    body = _streamed({**body, "structured_outputs": outputs}, rng.random() < 0.6)

    def check(reply: Reply) -> str | None:
        text = reply.choice(0).text
        return None if _accepted(which, text) else f"{text!r} came where {outputs} was asked for"

    return Call(f"grammar, {which}", body, check=check)


def _accepted(which: str, text: str) -> bool:
    if which == "regex":
        return re.fullmatch(DIGITS, text) is not None
    if which == "choice":
        return text in ("yes", "no", "perhaps")
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return found.keys() == {"kind", "yes"} and found["kind"] in ("a", "b") and isinstance(found["yes"], bool)


def repeated(number: int, material: Material, seeded: bool) -> Call:
    """The same each time it is asked for; see `Texts`."""
    ways = {"temperature": 1.0, "seed": number} if seeded else {"temperature": 0.0}
    body = {"model": MODEL_NAME, "prompt": material.prompts[number], "max_tokens": 40, "ignore_eos": True, **ways}
    return Call(f"repeated, {'seeded' if seeded else 'greedy'}", body)
