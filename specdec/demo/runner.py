"""The demo from beginning to end: which servers run, in which order, and what is sent to each."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from specdec.demo.acceptance import NO_SPECULATION, acceptance_in
from specdec.demo.load import LoadResult, send_load
from specdec.demo.prompts import Prompt
from specdec.demo.report import TITLES, Measurement, Modes
from specdec.demo.servers import Server, free_port
from specdec.engines.command import Kind, server_command
from specdec.engines.installed import Engine
from specdec.errors import SpecdecError
from specdec.metrics.scrape import parse

# A compiled server of ours with its loads takes about this long (seconds); with less left, the last run is eager.
COMPILED_RUN = 130.0

# What the others are compared with comes first, and what the demo could do without last.
ORDER: tuple[Kind, ...] = ("none", "specdec", "block", "greedy", "stock")


@dataclass(frozen=True)
class Plan:
    """What is measured. time_limit: seconds in all that the order of the runs is fitted to (not a timeout)."""

    model: str
    head: str
    output_tokens: int = 96
    requests: int = 32
    num_drafts: int = 3
    temperature: float = 1.0
    concurrencies: tuple[int, ...] = (1, 8)
    max_model_len: int = 512
    quick: bool = False
    kinds: tuple[Kind, ...] = ORDER
    time_limit: float = 600.0

    def facts(self) -> dict[str, object]:
        return {k: v for k, v in asdict(self).items() if k not in ("time_limit", "kinds")}


@dataclass
class Demo:
    """Runs a plan; `runs` fills up as it goes."""

    plan: Plan
    engine: Engine
    prompts: Sequence[Prompt]
    output: Path
    console: Console
    runs: dict[Kind, Modes] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def measure(self) -> dict[Kind, Modes]:
        """All runs: without speculation and with sampled drafts both configurations, the others the faster one."""
        for kind in self.plan.kinds:
            for mode in self._modes(kind):
                self.runs.setdefault(kind, {})[mode] = self._run(kind, mode)
        return self.runs

    def _modes(self, kind: Kind) -> tuple[str, ...]:
        if self.plan.quick:
            return ("eager",)
        if kind in ("none", "specdec"):
            return ("eager", "compiled")
        left = self.plan.time_limit - (time.monotonic() - self.began)
        if kind == "stock" and left < COMPILED_RUN:
            self.console.print(f"  [yellow]{left:.0f} s left: {TITLES[kind]} runs eager[/]")
            return ("eager",)
        return (self._faster_mode(),)

    def _faster_mode(self) -> str:
        """The configuration in which our sampled drafts were faster at the lowest concurrency."""
        modes = self.runs.get("specdec") or self.runs.get("none") or {}
        first = self.plan.concurrencies[0]
        return max(modes, key=lambda mode: modes[mode][first].tokens_per_second, default="compiled")

    def _run(self, kind: Kind, mode: str) -> dict[int, Measurement]:
        port = free_port()
        command = server_command(
            kind,
            self.engine,
            self.plan.model,
            self.plan.head,
            num_drafts=self.plan.num_drafts,
            eager=mode == "eager",
            port=port,
            # The same for every run. No prefix cache: the loads share their prompts, a hit would flatter the later one.
            extra=[
                "--max-model-len", str(self.plan.max_model_len), "--max-num-seqs", str(max(self.plan.concurrencies)),
                "--no-enable-prefix-caching", "--generation-config", "vllm", "--seed", "0",
            ],
        )  # fmt: skip
        self.console.print(f"[bold]{TITLES[kind]}[/], {mode}")
        self.console.print(f"  [dim]{command.shell()}[/]", soft_wrap=True)
        server = Server(command, port, self.output / "logs" / f"{kind}-{mode}.log")
        with ExitStack() as stack:
            with self.console.status("  starting the server ..."):
                stack.enter_context(server)
            self.console.print(f"  ready after {server.seconds_to_ready:.0f} s")
            return {c: self._load(server, kind, command.shell(), c) for c in self.plan.concurrencies}

    def _load(self, server: Server, kind: Kind, command: str, concurrency: int) -> Measurement:
        """A few requests to warm up, then the counted load between two scrapes."""
        try:
            self._send(server, self.prompts[: max(2, concurrency)], concurrency, "warm-up", tokens=24)
            before = parse(server.metrics())
            result = self._send(server, self.prompts, concurrency, f"{concurrency} at a time", self.plan.output_tokens)
            after = parse(server.metrics())
        except (SpecdecError, OSError) as error:
            time.sleep(1)  # a dying server needs a moment to be seen as dead
            server.check_alive()
            raise SpecdecError(f"{error} {server.last_words()}") from None
        acceptance = NO_SPECULATION if kind == "none" else acceptance_in(after.since(before))
        length = "" if acceptance.length is None else f", acceptance length {acceptance.length:.2f}"
        self.console.print(f"  {concurrency} at a time: {result.tokens_per_second:.1f} tokens/s{length}")
        return Measurement(result.tokens_per_second, result.first_token_ms, acceptance, command)

    def _send(self, server: Server, prompts: Sequence[Prompt], concurrency: int, label: str, tokens: int) -> LoadResult:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = self.console.is_terminal
        with Progress(
            *columns, console=self.console, transient=True, refresh_per_second=2, disable=not shown
        ) as progress:
            task = progress.add_task(label, total=len(prompts))
            return asyncio.run(
                send_load(
                    server.url,
                    self.plan.model,
                    prompts,
                    concurrency,
                    tokens,
                    self.plan.temperature,
                    on_done=lambda: progress.advance(task),
                )
            )
