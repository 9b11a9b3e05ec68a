"""The soak from beginning to end: warm, phases, rest, drain; all that it saw in one record."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from specdec.metrics.scrape import Scrape, Sums, parse

from .calls import Call
from .client import send, session
from .faulty import FAULTS
from .ledger import Ledger, Texts
from .material import MODEL_NAME, Material
from .plan import Phase, Plan
from .processes import Process, processes_of
from .served import audited, grammar, plain, repeated
from .server import STEP, Soaked

REPEATED = 4  # prompts of requests that must say the same each time


@dataclass(frozen=True)
class Sample:
    """tokens: that clients have had so far, of whole answers."""

    seconds: float
    processes: list[Process]
    tokens: int
    clients: int


@dataclass
class Record:
    """Of one soak. rests: the processes while nobody asks, behind the warm-up and at the end."""

    ledger: Ledger = field(default_factory=Ledger)
    calm: Ledger = field(default_factory=Ledger)
    texts: Texts = field(default_factory=Texts)
    samples: list[Sample] = field(default_factory=list)
    rests: list[list[Process]] = field(default_factory=list)
    whole: Sums = field(default_factory=lambda: Sums({}))
    of_calm: Sums = field(default_factory=lambda: Sums({}))
    end: Sums = field(default_factory=lambda: Sums({}))
    healthy: bool = False
    seconds: float = 0.0


class Soak:
    """on_time: is told the seconds that have passed, now and then. seeded: whether seeded requests must repeat."""

    def __init__(
        self, server: Soaked, plan: Plan, material: Material, seeded: bool = True,
        on_time: Callable[[float, str], None] = lambda seconds, what: None,
    ) -> None:  # fmt: skip
        self._server, self._plan, self._material, self._seeded, self._on_time = server, plan, material, seeded, on_time
        self._rng = random.Random(0)
        self._clients, self._began = 0, 0.0
        self.record = Record()

    async def run(self) -> Record:
        record = self.record
        await self._warm()
        await self._alone()
        first = await self._rest()
        self._began = time.monotonic()
        looking = asyncio.create_task(self._look())
        for phase in self._plan.phases:
            if phase.calm:
                before = await self._rest(record.ledger)
                await self._phase(phase)
                record.of_calm = (await self._rest(record.ledger, record.calm)).since(before)
                continue
            await self._phase(phase)
            if not record.rests and self._passed() > self._plan.warm * self._plan.seconds:
                record.rests.append(await self._resting())
        record.seconds = self._passed()
        looking.cancel()
        record.rests.append(await self._resting())
        record.end = await self._rest(record.ledger)
        record.whole = record.end.since(first)
        record.healthy = await self._healthy()
        return record

    def _passed(self) -> float:
        return time.monotonic() - self._began

    async def _warm(self) -> None:
        """Every number of tokens that a step can have, once. vLLM on a CPU keeps what oneDNN has compiled for each, up
        to 2 MiB with this model, which looks like a leak until all have come. Without us it does so too.
        """
        async with session(1) as client:
            for count in range(1, STEP + 1):
                body = {"model": MODEL_NAME, "prompt": [count] * count, "max_tokens": 1}
                await self._one(client, Call("warm", body))

    async def _alone(self) -> None:
        """What must come again each time is asked for one at a time first."""
        async with session(1) as client:
            for call in self._repeated():
                await self._one(client, call)

    def _repeated(self) -> list[Call]:
        ways = (False, True) if self._seeded else (False,)
        return [repeated(i, self._material, seeded) for i in range(REPEATED) for seeded in ways]

    async def _phase(self, phase: Phase) -> None:
        self._clients, until = phase.clients, time.monotonic() + phase.seconds
        async with session(phase.clients) as client, asyncio.TaskGroup() as tasks:
            for _ in range(phase.clients):
                tasks.create_task(self._client(client, phase, until, random.Random(self._rng.random())))
        self._clients = 0

    async def _client(self, client: aiohttp.ClientSession, phase: Phase, until: float, rng: random.Random) -> None:
        while time.monotonic() < until:
            self._server.check_alive()
            call = self._draw(rng, phase.calm)
            ledgers = (self.record.ledger, self.record.calm) if phase.calm else (self.record.ledger,)
            await self._one(client, call, *ledgers)
            self._on_time(self._passed(), f"{phase.clients} clients{', calm' if phase.calm else ''}")

    def _draw(self, rng: random.Random, calm: bool) -> Call:
        at = rng.random()
        if not calm:
            for make, share in FAULTS:
                at -= share
                if at < 0:
                    return make(self._material, rng)
        which = rng.random()
        if which < 0.08:
            return rng.choice(self._repeated())
        call = (audited if which < 0.2 else grammar if which < 0.28 else plain)(self._material, rng)
        return self._draw(rng, calm) if calm and call.stops_by_text else call

    async def _one(self, client: aiohttp.ClientSession, call: Call, *ledgers: Ledger) -> None:
        reply = await send(client, self._server.url, call)
        if call.kind.startswith("repeated"):
            assert isinstance(call.body, dict), "it is an object"
            self.record.texts.check(f"{call.kind} {call.body['prompt']}", reply, seeded="seed" in call.body)
        for ledger in ledgers:
            ledger.enter(call, reply)

    async def _look(self) -> None:
        while True:
            found = processes_of(self._server.pid)
            self.record.samples.append(Sample(self._passed(), found, self.record.ledger.tokens, self._clients))
            await asyncio.sleep(self._plan.samples)

    async def _resting(self) -> list[Process]:
        await self._rest(self.record.ledger)
        return processes_of(self._server.pid)

    async def _rest(self, *ledgers: Ledger) -> Scrape:
        """The metrics once nothing is under way any more; after a minute, as they are.

        vLLM's gauges are those of the last step, so one is asked for.
        """
        nobody = Call("rest", {"model": MODEL_NAME, "prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0.0})
        for _ in range(60):
            async with session(1) as client:
                await self._one(client, nobody, *ledgers)
            await asyncio.sleep(1)  # what is counted is published a moment later
            now = parse(await asyncio.to_thread(self._server.metrics))
            if not now.total("vllm:num_requests_running") + now.total("vllm:num_requests_waiting"):
                break
        return now

    async def _healthy(self) -> bool:
        async with session(1) as client, client.get(f"{self._server.url}/health") as answer:
            return answer.status == 200
