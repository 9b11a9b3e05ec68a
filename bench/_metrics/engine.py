"""A real engine in a process of its own, whose counting is switched between batches."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _engine import EngineProcess, arguments_of, speed

from specdec.engines.command import WORKER, speculative_config
from specdec.metrics.cells import DIRECTORY_VARIABLE, layout, read_all


@dataclass(frozen=True)
class Answer:
    """tokens: of each request, in order. counted: verify steps that /metrics would show for the batch."""

    tokens: list[list[int]]
    seconds: float
    counted: float

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return speed(self.tokens, self.seconds)


class Engine:
    """With three drafts."""

    def __init__(self, model: Path, head: Path, requests: int, length: int) -> None:
        ours = {"worker_cls": WORKER, "speculative_config": speculative_config("specdec", str(head), 3)}
        self._process = EngineProcess("metrics", arguments_of(model, requests, length, **ours), _answering)

    def run(self, prompts: list[list[int]], tokens: int, temperature: float, count: bool) -> Answer:
        """One request for each prompt, all at once, seeded; count: whether it is counted for /metrics."""
        return Answer(*self._process.call(prompts, tokens, temperature, count))


def _answering(llm: Any) -> Callable[..., Any]:
    from vllm import SamplingParams

    def answer(prompts: list[list[int]], tokens: int, temperature: float, count: bool) -> tuple[Any, ...]:
        llm.collective_rpc("specdec_count", args=(count,))
        # Seeds: the same tokens, and so the same steps, each time.
        params = [
            SamplingParams(temperature=temperature, max_tokens=tokens, ignore_eos=True, detokenize=False, seed=number)
            for number in range(len(prompts))
        ]
        before, began = _counted(), time.perf_counter()
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - began
        return [list(output.outputs[0].token_ids) for output in done], seconds, _counted() - before

    return answer


def _counted() -> float:
    folder = Path(os.environ[DIRECTORY_VARIABLE])
    return sum(float(layout(cells)["steps"][0]) for cells in read_all(folder).values())
