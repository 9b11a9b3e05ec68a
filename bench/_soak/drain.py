"""What a server does that is asked to stop while streams are under way: it ends them, takes nobody new, and goes."""

import asyncio
from dataclasses import dataclass, field

from .calls import Call, Reply
from .client import send, session
from .material import MODEL_NAME, Material
from .processes import processes_of
from .server import Soaked

STREAMS, TOKENS, PATIENCE = 8, 300, 60.0


@dataclass
class Drained:
    """replies: of the streams that were under way. later: of one that came behind the signal. status: exit status of
    the main process, None where it had to be killed; left_over: processes that outlived it.
    """

    replies: list[Reply] = field(default_factory=list)
    later: Reply = field(default_factory=Reply)
    status: int | None = None
    left_over: int = 0


async def drain(server: Soaked, material: Material) -> Drained:
    """Asks the server to stop once all streams have begun."""
    found, session_id = Drained(), server.pid
    calls = [_stream(prompt) for prompt in material.prompts[:STREAMS]]
    async with session(STREAMS) as client:
        begun = [asyncio.Event() for _ in calls]
        streams = [
            asyncio.create_task(send(client, server.url, call, event.set))
            for call, event in zip(calls, begun, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        server.ask_to_stop()
        await asyncio.sleep(0.2)
        found.later = await send(client, server.url, _stream(material.prompts[STREAMS]))
        found.replies = list(await asyncio.gather(*streams))
    found.status = await asyncio.to_thread(server.status_within, PATIENCE)
    await asyncio.sleep(1)
    found.left_over = len(processes_of(session_id))
    return found


def _stream(prompt: list[int]) -> Call:
    body = {"model": MODEL_NAME, "prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 1.0}
    return Call("drained", {**body, "stream": True, "stream_options": {"include_usage": True}})
