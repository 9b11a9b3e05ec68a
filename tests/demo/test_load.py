"""The load generator against a small server that streams as vLLM does."""

import asyncio
import json

import pytest
from aiohttp import web

from specdec.demo.load import Completion, LoadResult, send_load
from specdec.demo.prompts import Prompt
from specdec.errors import SpecdecError

PROMPTS = [Prompt(f"f{i}:1", [i, i + 1]) for i in range(6)]


class FakeServer:
    """Streams `tokens` pieces per request; remembers the bodies and how many requests overlapped."""

    def __init__(self, tokens: int | None = None, status: int = 200, error: bool = False, cut: bool = False):
        self.tokens, self.status, self.error, self.cut = tokens, status, error, cut
        self.bodies: list[dict] = []
        self.now = self.most = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.status != 200:
            return web.Response(status=self.status, text="no such model")
        self.now += 1
        self.most = max(self.most, self.now)
        stream = web.StreamResponse()
        await stream.prepare(request)
        count = self.tokens if self.tokens is not None else body["max_tokens"]
        for _ in range(count):
            await asyncio.sleep(0.002)
            await self._send(stream, {"choices": [{"text": "x"}]})
            if self.cut:
                request.transport.close()
        await self._send(stream, {"error": {"message": "engine died"}} if self.error else {
            "choices": [], "usage": {"completion_tokens": count},
        })  # fmt: skip
        await stream.write(b"data: [DONE]\n\n")
        self.now -= 1
        return stream

    async def _send(self, stream: web.StreamResponse, event: dict) -> None:
        await stream.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def load(server: FakeServer, concurrency: int = 1, on_done=lambda: None) -> LoadResult:
    async def scenario() -> LoadResult:
        app = web.Application()
        app.router.add_post("/v1/completions", server.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return await send_load(f"http://127.0.0.1:{port}", "m", PROMPTS, concurrency, 5, 1.0, on_done)
        finally:
            await runner.cleanup()

    return asyncio.run(scenario())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_prompt_is_sent_once_at_the_wanted_concurrency(concurrency):
    server, done = FakeServer(), []
    result = load(server, concurrency, lambda: done.append(1))
    assert sorted(tuple(b["prompt"]) for b in server.bodies) == [tuple(p.token_ids) for p in PROMPTS]
    assert server.most == concurrency and len(done) == len(PROMPTS)
    assert sum(c.tokens for c in result.completions) == 30
    assert all(0 < c.first_token < result.seconds for c in result.completions)


def test_all_requests_ask_for_the_same():
    server = FakeServer()
    load(server)
    same = {json.dumps({k: v for k, v in b.items() if k != "prompt"}, sort_keys=True) for b in server.bodies}
    assert len(same) == 1
    body = json.loads(same.pop())
    assert body["ignore_eos"] and body["max_tokens"] == 5 and body["temperature"] == 1.0 and body["top_p"] == 1.0


def test_figures_by_hand():
    result = LoadResult([Completion(96, 0.010), Completion(96, 0.030), Completion(96, 0.020)], seconds=2.0)
    assert result.tokens_per_second == 144.0
    assert result.first_token_ms == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (FakeServer(tokens=4), "came back with 4"),
        (FakeServer(tokens=0), "came back with 0"),
        (FakeServer(status=404), "HTTP 404: no such model"),
        (FakeServer(error=True), "engine died"),
        (FakeServer(cut=True), "connection to the server was lost"),
    ],
)
def test_anything_but_a_full_answer_stops_the_load(server, message):
    with pytest.raises(SpecdecError, match=message):
        load(server, concurrency=2)
