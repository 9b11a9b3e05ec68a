"""Sends one request as a client would, streamed or whole, and reads what comes."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .calls import Call, Reply

PATIENCE = 120.0  # seconds without a byte, after which an answer counts as lost


def session(connections: int) -> aiohttp.ClientSession:
    """One connection for each request: a server may close one that was kept, for it was idle, in the moment in which
    the next request goes out on it, and that would be nobody's fault. A connection that is lost here, is one.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
    connector = aiohttp.TCPConnector(limit=connections + 8, force_close=True)
    return aiohttp.ClientSession(timeout=timeout, connector=connector)


async def send(
    client: aiohttp.ClientSession, url: str, call: Call, on_event: Callable[[], object] = lambda: None
) -> Reply:
    """The reply; what should not be stands in its problem. on_event: called with each event of a stream."""
    reply = Reply()
    try:
        if call.send is not None:
            await _send_half(url, call)
            return reply
        async with asyncio.timeout(call.leave_seconds):
            await _send(client, url, call, reply, on_event)
    except TimeoutError as error:
        if call.leave_seconds is None:
            reply.problem = f"no answer came for {PATIENCE:.0f} s ({error!r})"
    except (aiohttp.ClientError, OSError) as error:
        reply.problem = f"the connection was lost ({error!r})"
    if reply.whole and reply.problem is None and call.status == 200:
        reply.problem = call.check(reply)
    return reply


async def _send(
    client: aiohttp.ClientSession, url: str, call: Call, reply: Reply, on_event: Callable[[], object]
) -> None:
    data = call.body if isinstance(call.body, bytes) else json.dumps(call.body).encode()
    headers = {"Content-Type": "application/json"}
    async with client.post(url + call.path, data=data, headers=headers) as answer:
        reply.status = answer.status
        if answer.status != call.status:
            reply.problem = f"HTTP {answer.status} came, not {call.status}: {(await answer.text())[:300]}"
        elif answer.status != 200:
            reply.problem = _refusal(await answer.read())
            reply.whole = reply.problem is None
        elif answer.content_type == "text/event-stream":
            await _read_events(answer, call, reply, on_event)
        else:
            _take(await answer.json(), reply)
            reply.whole = True


def _refusal(content: bytes) -> str | None:
    """A refusal says why."""
    try:
        found = json.loads(content)
    except ValueError:
        return f"a refusal that is no JSON: {content[:200]!r}"
    return None if found.get("error") or found.get("detail") else f"a refusal without a reason: {found}"


async def _read_events(
    answer: aiohttp.ClientResponse, call: Call, reply: Reply, on_event: Callable[[], object]
) -> None:
    count, done = 0, False
    async for line in answer.content:
        text = line.decode().strip()
        if done and text:
            reply.problem = f"something came behind [DONE]: {text[:200]}"
        if not text.startswith("data: "):
            continue
        done = text == "data: [DONE]"
        if not done:
            _take(json.loads(text.removeprefix("data: ")), reply)
            count += 1
            on_event()
        if call.leave_events is not None and count >= call.leave_events:
            answer.close()
            return
    reply.whole = done
    if not done and reply.problem is None:
        reply.problem = "a stream ended without [DONE]"


def _take(found: dict[str, Any], reply: Reply) -> None:
    """found: a whole answer, or an event of a stream."""
    if "error" in found:
        reply.problem = f"an answer broke off: {found['error']}"
        return
    for given in found["choices"]:
        choice = reply.choice(given["index"])
        message = given.get("message") or given.get("delta") or {}
        choice.text += given.get("text") or message.get("content") or ""
        choice.finish = given.get("finish_reason") or choice.finish
        logprobs = given.get("logprobs") or {}
        choice.logprobs += len(logprobs.get("content") or logprobs.get("tokens") or ())
        choice.specdec.update(given.get("specdec") or {})
        read = (given.get("specdec") or {}).get("read", {})
        choice.entries += len(read.get("activations", read.get("top", ())))
    if found.get("usage"):
        reply.tokens = found["usage"]["completion_tokens"]


async def _send_half(url: str, call: Call) -> None:
    assert isinstance(call.body, bytes), "what is sent in part is written out"
    place = urlsplit(url)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST {call.path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(call.body)}\r\n\r\n".encode() + call.body[: call.send])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
