"""A real engine in a process of its own, kept at a number of requests in flight; how it drafts is switched between
loads.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _engine import EngineProcess, arguments_of, spec_decode_counts, speed

from specdec.engines.command import WORKER, speculative_config


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
        return speed(self.tokens, self.seconds)


class Engine:
    """head None: no speculation at all."""

    def __init__(self, name: str, model: Path, head: Path | None, drafts: int, requests: int, length: int) -> None:
        arguments = arguments_of(model, requests, length, disable_log_stats=False)
        if head is not None:
            arguments |= {
                "worker_cls": WORKER, "speculative_config": speculative_config("specdec", str(head), drafts),
                "additional_config": {"specdec": {"drafts": {"count": "adaptive"}}},
            }  # fmt: skip
        self._process = EngineProcess(name, arguments, _answering)

    def run(self, way: Any, loads: Sequence[Load]) -> Answer:
        """The loads, one after the other. way: "adaptive"; a number, which all requests have; a list of
        (smallest batch, largest, number), vLLM's own table; None: as the engine was started."""
        return Answer(*self._process.call(way, loads))

    def close(self) -> None:
        """Ends the engine."""
        self._process.close()


def _answering(llm: Any) -> Callable[..., Any]:
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    ways = _Ways(scheduler, scheduler.max_num_running_reqs)
    names = ("num_draft_tokens", "num_accepted_tokens", "num_drafts")

    def answer(way: Any, loads: Sequence[Load]) -> tuple[Any, ...]:
        if way is not None:
            ways.take(way)
        before, began = spec_decode_counts(llm, *names), time.perf_counter()
        tokens = [ids for load in loads for ids in _run(llm.llm_engine, load)]
        seconds = time.perf_counter() - began
        counts = (after - earlier for after, earlier in zip(spec_decode_counts(llm, *names), before, strict=True))
        return tokens, seconds, *counts

    return answer


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
