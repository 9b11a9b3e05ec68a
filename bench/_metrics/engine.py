"""A real engine in a process of its own, whose counting is switched between batches."""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from specdec.engines.command import WORKER, cpu_environment, speculative_config
from specdec.engines.installed import require_vllm


@dataclass(frozen=True)
class Answer:
    """tokens: of each request, in order. counted: verify steps that /metrics would show for the batch."""

    tokens: list[list[int]]
    seconds: float
    counted: float

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return sum(map(len, self.tokens)) / self.seconds


class Engine:
    """The engine is compiled, as servers are, and starts when it is made."""

    def __init__(self, model: Path, head: Path, requests: int, length: int) -> None:
        engine = require_vllm()
        os.environ.update(cpu_environment(os.environ) if engine.cpu_only else {})
        arguments = {
            "model": str(model), "max_model_len": length, "max_num_seqs": requests, "worker_cls": WORKER,
            "speculative_config": speculative_config("specdec", str(head), 3), "enable_prefix_caching": False,
            "seed": 0,
        }  # fmt: skip
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.log = Path(tempfile.gettempdir()) / "specdec-bench-metrics.log"
        self._process = context.Process(target=_serve, args=(theirs, arguments, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def run(self, prompts: list[list[int]], tokens: int, temperature: float, count: bool) -> Answer:
        """One request for each prompt, all at once, seeded; count: whether it is counted for /metrics."""
        self._pipe.send((prompts, tokens, temperature, count))
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
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECDEC_METRICS_DIR"] = folder
        _answer(pipe, arguments, Path(folder))


def _answer(pipe: Connection, arguments: dict[str, Any], folder: Path) -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    pipe.send("ready")
    while True:
        try:
            prompts, tokens, temperature, count = pipe.recv()
        except EOFError:
            return
        llm.collective_rpc("specdec_count", args=(count,))
        # Seeds: the same tokens, and so the same steps, each time.
        params = [
            SamplingParams(temperature=temperature, max_tokens=tokens, ignore_eos=True, detokenize=False, seed=number)
            for number in range(len(prompts))
        ]
        before, began = _counted(folder), time.perf_counter()
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - began
        pipe.send(([list(output.outputs[0].token_ids) for output in done], seconds, _counted(folder) - before))


def _counted(folder: Path) -> float:
    from specdec.metrics.cells import layout, read_all

    return sum(float(layout(cells)["steps"][0]) for cells in read_all(folder).values())
