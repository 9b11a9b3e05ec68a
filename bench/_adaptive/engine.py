"""A real engine in a process of its own, kept at a number of requests in flight; how it drafts is switched between
loads.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from specdec.engines.command import WORKER, cpu_environment, speculative_config
from specdec.engines.installed import require_vllm


@dataclass(frozen=True)
class Load:
    """Requests, each a prompt's token ids and sampling parameters; `concurrency` of them at once."""

    concurrency: int
    requests: Sequence[tuple[list[int], dict[str, Any]]]


@dataclass(frozen=True)
class Answer:
    """tokens: of each request, in order. drafts, accepted: draft tokens; steps: of one request with drafts."""

    tokens: list[list[int]]
    seconds: float
    drafts: int
    accepted: int
    steps: int

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return sum(map(len, self.tokens)) / self.seconds


class Engine:
    """head None: no speculation at all. The engine is compiled, as servers are, and starts when it is made."""

    def __init__(self, name: str, model: Path, head: Path | None, drafts: int, requests: int, length: int) -> None:
        engine = require_vllm()
        os.environ.update(cpu_environment(os.environ) if engine.cpu_only else {})
        arguments: dict[str, Any] = {
            "model": str(model), "max_model_len": length, "max_num_seqs": requests, "enable_prefix_caching": False,
            "disable_log_stats": False, "seed": 0,
        }  # fmt: skip
        if head is not None:
            arguments |= {
                "worker_cls": WORKER, "speculative_config": speculative_config("specdec", str(head), drafts),
                "additional_config": {"specdec": {"drafts": {"count": "adaptive"}}},
            }  # fmt: skip
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.log = Path(tempfile.gettempdir()) / f"specdec-bench-{name}.log"
        self._process = context.Process(target=_serve, args=(theirs, arguments, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def run(self, way: Any, loads: Sequence[Load]) -> Answer:
        """The loads, one after the other. way: "adaptive"; a number, which all requests have; a list of
        (smallest batch, largest, number), vLLM's own table; None: as the engine was started."""
        self._pipe.send((way, loads))
        return Answer(*self._receive())

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the engine has ended: {self.log}") from None


def _serve(pipe: Connection, arguments: dict[str, Any], log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine here, in this process
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from vllm import LLM

    llm = LLM(**arguments)
    ways = _Ways(llm.llm_engine.engine_core.engine_core.scheduler, arguments["max_num_seqs"])
    pipe.send("ready")
    while True:
        try:
            way, loads = pipe.recv()
        except EOFError:
            return
        if way is not None:
            ways.take(way)
        before, began = _counts(llm), time.perf_counter()
        tokens = [ids for load in loads for ids in _run(llm.llm_engine, load)]
        seconds = time.perf_counter() - began
        counts = (after - earlier for after, earlier in zip(_counts(llm), before, strict=True))
        pipe.send((tokens, seconds, *counts))


class _Ways:
    """Of a scheduler to choose the number of drafts. What was learned is kept, as in a server that runs on."""

    def __init__(self, scheduler: Any, requests: int) -> None:
        self._scheduler, self._requests = scheduler, requests
        self._adaptive = getattr(scheduler, "_drafts", None)

    def take(self, way: Any) -> None:
        from vllm.v1.spec_decode.dynamic.utils import build_dynamic_sd_schedule_lookup

        from specdec.engines.vllm.adaptive import PinnedDrafts

        if isinstance(way, list):
            most = self._scheduler.num_spec_tokens
            table = build_dynamic_sd_schedule_lookup(way, self._requests, most)
            self._scheduler._drafts, self._scheduler.dynamic_sd_lookup = None, table
            return
        drafts = self._adaptive if way == "adaptive" else PinnedDrafts(way)
        self._scheduler._drafts = self._scheduler.dynamic_sd_lookup = drafts


def _run(engine: Any, load: Load) -> list[list[int]]:
    from vllm import SamplingParams

    waiting = list(enumerate(load.requests))[::-1]
    found: list[list[int]] = [[] for _ in load.requests]
    running = 0
    while waiting or running:
        while waiting and running < load.concurrency:
            number, (ids, params) = waiting.pop()
            engine.add_request(
                str(number), {"prompt_token_ids": ids}, SamplingParams(ignore_eos=True, detokenize=False, **params)
            )
            running += 1
        for output in engine.step():
            if output.finished:
                found[int(output.request_id)] = list(output.outputs[0].token_ids)
                running -= 1
    return found


def _counts(llm: Any) -> tuple[int, int, int]:
    values = {metric.name: getattr(metric, "value", None) for metric in llm.get_metrics()}
    names = ("num_draft_tokens", "num_accepted_tokens", "num_drafts")
    return tuple(values.get(f"vllm:spec_decode_{name}", 0) for name in names)  # type: ignore[return-value]
