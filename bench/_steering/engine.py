"""An engine that steers, or one that cannot, and batches for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _engine import EngineProcess, arguments_of, spec_decode_counts, speed

from specdec.engines.command import WORKER, speculative_config


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
        return speed(self.tokens, self.seconds)

    @property
    def acceptance_length(self) -> float:
        """Tokens per verify step."""
        return 1 + self.accepted / self.steps


class Engine:
    """settings: the plugin's."""

    def __init__(
        self, name: str, model: Path, head: Path, settings: dict[str, Any], requests: int, length: int
    ) -> None:
        arguments = arguments_of(
            model, requests, length, worker_cls=WORKER, disable_log_stats=False,
            speculative_config=speculative_config("specdec", str(head), 3), additional_config={"specdec": settings},
        )  # fmt: skip
        self._process = EngineProcess(name, arguments, _answering)

    def run(self, prompts: list[list[int]], programs: list[Any], tokens: int, temperature: float) -> Answer:
        """One request for each prompt, all at once; programs: steering programs, or None."""
        return Answer(*self._process.call(prompts, programs, tokens, temperature))


def _answering(llm: Any) -> Callable[..., Any]:
    from vllm import SamplingParams

    names = ("num_drafts", "num_accepted_tokens")

    def answer(prompts: list[list[int]], programs: list[Any], tokens: int, temperature: float) -> tuple[Any, ...]:
        params = [
            SamplingParams(
                temperature=temperature, max_tokens=tokens, ignore_eos=True, detokenize=False,
                extra_args=None if program is None else {"specdec": program},
            )
            for program in programs
        ]  # fmt: skip
        before, began = spec_decode_counts(llm, *names), time.perf_counter()
        done = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - began
        counts = (after - earlier for after, earlier in zip(spec_decode_counts(llm, *names), before, strict=True))
        return [list(output.outputs[0].token_ids) for output in done], seconds, *counts

    return answer
