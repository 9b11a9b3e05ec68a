"""A real engine in a process of its own, which answers one call at a time: two can take turns."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from specdec.engines.command import cpu_environment
from specdec.engines.installed import require_vllm
from specdec.metrics.cells import DIRECTORY_VARIABLE


class EngineProcess:
    """answering(llm): makes what answers a call, of vllm.LLM(**arguments); both are made in the process.

    The engine is compiled, as servers are, and starts when this is made; `log` receives what it prints.
    """

    def __init__(self, name: str, arguments: dict[str, Any], answering: Callable[[Any], Callable[..., Any]]) -> None:
        engine = require_vllm()
        os.environ.update(cpu_environment(os.environ) if engine.cpu_only else {})
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.log = Path(tempfile.gettempdir()) / f"specdec-bench-{name}.log"
        self._process = context.Process(target=_serve, args=(theirs, arguments, answering, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def call(self, *arguments: Any) -> Any:
        """What the engine's side answers."""
        self._pipe.send(arguments)
        return self._receive()

    def close(self) -> None:
        """Ends the engine."""
        self._pipe.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the engine has ended: {self.log}") from None


def _serve(
    pipe: Connection, arguments: dict[str, Any], answering: Callable[[Any], Callable[..., Any]], log: Path
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine here, in this process
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as counters:
        os.environ[DIRECTORY_VARIABLE] = counters
        from vllm import LLM

        answer = answering(LLM(**arguments))
        pipe.send("ready")
        while True:
            try:
                given = pipe.recv()
            except EOFError:
                return
            pipe.send(answer(*given))


def arguments_of(model: Path, requests: int, length: int, **more: Any) -> dict[str, Any]:
    """Of vllm.LLM, as all benches have them. length: of a request, tokens."""
    same = {"enable_prefix_caching": False, "seed": 0}
    return {"model": str(model), "max_model_len": length, "max_num_seqs": requests, **same, **more}


def speed(tokens: list[list[int]], seconds: float) -> float:
    """Tokens per second."""
    return sum(map(len, tokens)) / seconds


def spec_decode_counts(llm: Any, *names: str) -> tuple[int, ...]:
    """vLLM's own counters of speculation so far; 0 where the engine has none."""
    values = {metric.name: getattr(metric, "value", None) for metric in llm.get_metrics()}
    return tuple(values.get(f"vllm:spec_decode_{name}", 0) for name in names)
