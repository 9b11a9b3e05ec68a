"""A real engine in a process of its own, kept at a number of requests in flight; how it drafts is switched while they
run.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _engine import EngineProcess, arguments_of

from specdec.engines.command import WORKER, speculative_config

SETTLING = 3  # steps behind a switch, whose drafts or rows the way before has asked for
SECONDS, STEPS = 0.8, 16  # that a turn takes at least: a head that goes over waiting rows does so every 16 steps

Request = tuple[list[int], dict[str, Any]]  # prompt's token ids, sampling parameters


@dataclass(frozen=True)
class Load:
    """`concurrency` requests at all times, of these prompts and kinds of sampling by turns, `tokens` tokens each."""

    concurrency: int
    kinds: Sequence[dict[str, Any]]
    prompts: Sequence[list[int]]
    tokens: int


class Engine:
    """head None: no speculation at all. count: the setting drafts.count.

    A way of drafting is "adaptive"; a number, which all requests have; a list of (smallest batch, largest, number),
    vLLM's own table; None: as the engine was started.
    """

    def __init__(
        self, model: Path, head: Path | None, drafts: int, requests: int, length: int, count: str | int = "adaptive"
    ) -> None:
        arguments = arguments_of(model, requests, length, disable_log_stats=False)
        if head is not None:
            arguments |= {
                "worker_cls": WORKER, "speculative_config": speculative_config("specdec", str(head), drafts),
                "additional_config": {"specdec": {"drafts": {"count": count}}},
            }  # fmt: skip
        self._process = EngineProcess("bare" if head is None else str(count), arguments, _answering)

    def complete(self, way: Any, requests: Sequence[Request]) -> list[list[int]]:
        """All of them at once, nothing else: the tokens of each, in order."""
        return self._process.call("complete", way, requests)

    def keep(self, load: Load) -> None:
        """From now on; what ran before is aborted."""
        self._process.call("keep", load)

    def turn(self, way: Any) -> float:
        """Tokens per second, some time long, under the load that is kept."""
        return self._process.call("turn", way)

    def close(self) -> None:
        """Ends the engine."""
        self._process.close()


def _answering(llm: Any) -> Callable[..., Any]:
    engine = llm.llm_engine
    scheduler = engine.engine_core.engine_core.scheduler
    ways, flow = _Ways(scheduler, scheduler.max_num_running_reqs), _Flow(engine)

    def answer(what: str, *given: Any) -> Any:
        if what == "keep":
            flow.keep(*given)
            return None
        way, *rest = given
        if way is not None:
            ways.take(way)
        return _complete(engine, *rest) if what == "complete" else flow.turn()

    return answer


class _Ways:
    """Of a scheduler to choose the number of drafts. What was learned is kept, as in a server that runs on."""

    def __init__(self, scheduler: Any, requests: int) -> None:
        self._scheduler, self._requests = scheduler, requests
        self._adaptive = getattr(scheduler, "_drafts", None)

    def take(self, way: Any) -> None:
        from vllm.v1.spec_decode.dynamic.utils import build_dynamic_sd_schedule_lookup

        self._adaptive._over = None  # the step that it learns of next is not the one behind its last
        drafts = self._adaptive
        if isinstance(way, list):
            most = self._scheduler.num_spec_tokens
            drafts = _beside(self._adaptive, build_dynamic_sd_schedule_lookup(way, self._requests, most).__getitem__)
        elif way != "adaptive":
            drafts = _beside(self._adaptive, lambda requests: way)
        self._scheduler._drafts = self._scheduler.dynamic_sd_lookup = drafts


def _beside(adaptive: Any, number: Callable[[int], int]) -> Any:
    """Numbers of drafts by numbers of requests. Requests come and go for the adaptive way too: it is to find them."""
    from specdec.engines.vllm.adaptive import PinnedDrafts

    class Beside(PinnedDrafts):
        def __getitem__(self, requests: int) -> int:
            return number(requests)

        def admit(self, request: Any) -> None:
            adaptive.admit(request)

        def scheduled(self, output: Any) -> None:
            for request_id in output.finished_req_ids:
                adaptive.forget(request_id)

    return Beside(adaptive._most)


class _Flow:
    """Requests in flight: whenever one ends, the next begins."""

    def __init__(self, engine: Any) -> None:
        self._engine, self._load = engine, None
        self._numbers = itertools.count()
        self._running: set[str] = set()

    def keep(self, load: Load) -> None:
        self._engine.abort_request(list(self._running))
        while self._engine.has_unfinished_requests():
            self._engine.step()
        self._running.clear()
        self._load = load
        # Those that are the first end one by one, as later ones do.
        lengths = random.Random(0)
        for _ in range(load.concurrency):
            self._begin(lengths.randint(2, load.tokens))
        waiting = set(self._running)
        while waiting:
            waiting -= self._step()[1]

    def turn(self) -> float:
        for _ in range(SETTLING):
            self._step()
        began, steps, tokens = time.perf_counter(), 0, 0
        while steps < STEPS or time.perf_counter() - began < SECONDS:
            tokens += self._step()[0]
            steps += 1
        return tokens / (time.perf_counter() - began)

    def _begin(self, tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        number, load = next(self._numbers), self._load
        params = SamplingParams(
            ignore_eos=True, detokenize=False, max_tokens=tokens, output_kind=RequestOutputKind.DELTA,
            **load.kinds[number % len(load.kinds)],
        )  # fmt: skip
        ids = load.prompts[number % len(load.prompts)]
        self._running.add(str(number))
        self._engine.add_request(str(number), {"prompt_token_ids": ids}, params)

    def _step(self) -> tuple[int, set[str]]:
        """Tokens that came, and whose."""
        outputs = self._engine.step()
        for output in outputs:
            if output.finished:
                self._running.discard(output.request_id)
                self._begin(self._load.tokens)
        return sum(len(output.outputs[0].token_ids) for output in outputs), {output.request_id for output in outputs}


def _complete(engine: Any, requests: Sequence[Request]) -> list[list[int]]:
    from vllm import SamplingParams

    found: dict[str, list[int]] = {}
    for number, (ids, params) in enumerate(requests):
        engine.add_request(
            f"whole {number}", {"prompt_token_ids": ids}, SamplingParams(ignore_eos=True, detokenize=False, **params)
        )
    while len(found) < len(requests):
        for output in engine.step():
            if output.finished:
                found[output.request_id] = list(output.outputs[0].token_ids)
    return [found[f"whole {number}"] for number in range(len(requests))]
