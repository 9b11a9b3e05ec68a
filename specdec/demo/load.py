"""The load: streaming completion requests at a fixed concurrency, timed from the client's side."""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from specdec.demo.prompts import Prompt
from specdec.errors import SpecdecError


@dataclass(frozen=True)
class Completion:
    """tokens: output tokens by the server's count; first_token: seconds from sending to the first piece of output."""

    tokens: int
    first_token: float


@dataclass(frozen=True)
class LoadResult:
    """All requests of one load. seconds: from the first one sent to the last one finished."""

    completions: list[Completion]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return sum(c.tokens for c in self.completions) / self.seconds

    @property
    def first_token_ms(self) -> float:
        """Median time to the first token, milliseconds."""
        return 1000 * statistics.median(c.first_token for c in self.completions)


def request_body(model: str, prompt: Prompt, output_tokens: int, temperature: float) -> dict[str, object]:
    """Every request of every run asks for the same: `output_tokens` tokens, no early end, plain sampling."""
    return {
        "model": model,
        "prompt": prompt.token_ids,
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": temperature,
        "top_p": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _complete(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> Completion:
    began, first, tokens = time.perf_counter(), None, 0
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        if answer.status != 200:
            raise SpecdecError(
                f"The server answered a request with HTTP {answer.status}: {(await answer.text())[:300]}"
            )
        async for line in answer.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                raise SpecdecError(f"The server broke a request off: {event['error']}")
            if event.get("choices") and first is None:
                first = time.perf_counter() - began
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    if first is None or tokens != body["max_tokens"]:
        raise SpecdecError(
            f"A request for {body['max_tokens']} tokens came back with {tokens}: the runs would not be comparable."
        )
    return Completion(tokens, first)


async def send_load(
    url: str,
    model: str,
    prompts: Sequence[Prompt],
    concurrency: int,
    output_tokens: int,
    temperature: float = 1.0,
    on_done: Callable[[], None] = lambda: None,
) -> LoadResult:
    """Send one request per prompt, never more than `concurrency` at a time; `on_done` is called after each."""
    waiting = iter(prompts)
    done: list[Completion] = []

    async def worker(session: aiohttp.ClientSession) -> None:
        for prompt in waiting:  # shared by all workers: each takes the next one
            done.append(await _complete(session, url, request_body(model, prompt, output_tokens, temperature)))
            on_done()

    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(concurrency):
                    tasks.create_task(worker(session))
        except ExceptionGroup as group:
            raise _plain(group.exceptions[0]) from None
        return LoadResult(done, time.perf_counter() - began)


def _plain(error: Exception) -> Exception:
    """The first thing that went wrong, as a sentence where it is the connection."""
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return SpecdecError(f"The connection to the server was lost ({error!r}).")
    return error
