"""A real engine in a process of its own, which answers one batch at a time: two can take turns."""

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
    """tokens: of each request, in order; steps: verify steps with drafts; accepted: draft tokens."""

    tokens: list[list[int]]
    seconds: float
    steps: int
    accepted: int

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return sum(map(len, self.tokens)) / self.seconds

    @property
    def acceptance_length(self) -> float:
        """Tokens per verify step."""
        return 1 + self.accepted / self.steps


class Engine:
    """settings: the plugin's. The engine is compiled, as servers are, and starts when it is made."""

    def __init__(
        self, name: str, model: Path, head: Path, settings: dict[str, Any], requests: int, length: int
    ) -> None:
        engine = require_vllm()
        os.environ.update(cpu_environment(os.environ) if engine.cpu_only else {})
        arguments = {
            "model": str(model), "max_model_len": length, "max_num_seqs": requests, "worker_cls": WORKER,
            "speculative_config": speculative_config("specdec", str(head), 3), "enable_prefix_caching": False,
            "additional_config": {"specdec": settings}, "disable_log_stats": False, "seed": 0,
        }  # fmt: skip
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.log = Path(tempfile.gettempdir()) / f"specdec-bench-{name}.log"
        self._process = context.Process(target=_serve, args=(theirs, arguments, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def run(self, prompts: list[list[int]], programs: list[Any], tokens: int, temperature: float) -> Answer:
        """One request for each prompt, all at once; programs: steering programs, or None."""
        self._pipe.send((prompts, programs, tokens, temperature))
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
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    pipe.send("ready")
    while True:
        try:
            prompts, programs, tokens, temperature = pipe.recv()
        except EOFError:
            return
        params = [
            SamplingParams(
                temperature=temperature, max_tokens=tokens, ignore_eos=True, detokenize=False,
                extra_args=None if program is None else {"specdec": program},
            )
            for program in programs
        ]  # fmt: skip
        before, began = _counts(llm), time.perf_counter()
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - began
        steps, accepted = (after - earlier for after, earlier in zip(_counts(llm), before, strict=True))
        pipe.send(([list(output.outputs[0].token_ids) for output in done], seconds, steps, accepted))


def _counts(llm: Any) -> tuple[int, int]:
    values = {metric.name: getattr(metric, "value", None) for metric in llm.get_metrics()}
    return values["vllm:spec_decode_num_drafts"], values["vllm:spec_decode_num_accepted_tokens"]
