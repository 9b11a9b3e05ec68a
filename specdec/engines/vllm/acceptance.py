"""Acceptance in the real engine: prompts and settings as evaluation has them, our worker, its counters.

The engine runs in a process of its own (`python -m specdec.engines.vllm.acceptance`), which takes a call as JSON on its
standard input and reports on a pipe, one line for each part of the load. So one engine after the other finds a clean
process, and its memory is free again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from specdec.engines.command import WORKER, cpu_environment, speculative_config
from specdec.engines.installed import require_vllm
from specdec.engines.logs import last_words
from specdec.errors import SpecdecError
from specdec.metrics.cells import DIRECTORY_VARIABLE, SIZE, Counts, layout, read_all

PARTS = 8  # of the prompts at each setting, run one after the other: their spread is the figure's error


@dataclass(frozen=True)
class Load:
    """settings: temperature, top_k, top_p and min_p of a request each; every prompt is continued at every setting.

    draft_temperature: see specdec.config.DraftSettings; "auto" would move while it is measured.
    """

    prompts: Sequence[list[int]]
    output_tokens: int
    settings: Sequence[dict[str, Any]]
    num_drafts: int
    dtype: str = "auto"
    draft_temperature: str = "calibrated"
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """What was counted while a part of the load ran, and the tokens that came out, the end-of-text token included."""

    setting: int
    counts: Counts
    outputs: list[list[int]]


def run_load(
    model: Path, head: Path, load: Load, log: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[list[Part]]:
    """By setting, the parts of its load. log: receives what the engine prints. progress: is told of requests done.

    SpecdecError: no engine, or one that ended by itself.
    """
    engine = require_vllm()
    found: list[list[Part]] = [[] for _ in load.settings]
    done, total = 0, len(load.prompts) * len(load.settings)
    call = {"model": str(model), "head": str(head), "load": asdict(load)}
    environment = cpu_environment(os.environ) if engine.cpu_only else {}
    for part in _parts(call, environment, log):
        found[part.setting].append(part)
        done += len(part.outputs)
        progress(done, total)
    if done < total:
        raise SpecdecError(f"The engine ended after {done} of {total} requests. {last_words(log)}")
    return found


def _parts(call: dict[str, Any], environment: dict[str, str], log: Path) -> Iterator[Part]:
    """Runs the child; ends with it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    with log.open("wb") as output, tempfile.TemporaryFile("w+") as stdin, os.fdopen(read) as reports:
        json.dump({**call, "reports": write}, stdin)
        stdin.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "specdec.engines.vllm.acceptance"], stdin=stdin, stdout=output, stderr=output,
            env={**os.environ, **environment}, pass_fds=[write],
            start_new_session=True,  # a group of its own: stopping reaches the engine's processes too
        )  # fmt: skip
        os.close(write)
        try:
            for line in reports:
                yield Part(**json.loads(line))
            child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def main() -> None:
    """The child."""
    call = json.load(sys.stdin)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine here, in this process
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder, os.fdopen(call["reports"], "w") as reports:
        os.environ[DIRECTORY_VARIABLE] = folder
        _run(call["model"], call["head"], Load(**call["load"]), Path(folder), reports)


def _run(model: str, head: str, load: Load, counters: Path, reports: TextIO) -> None:
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from specdec.engines.vllm.generate import engine_arguments

    size = -(-len(load.prompts) // PARTS)
    longest = max(map(len, load.prompts)) + load.output_tokens + load.num_drafts
    speculative = speculative_config("specdec", head, load.num_drafts)
    arguments = engine_arguments(Path(model), longest, concurrency=size, eager=True, seed=load.seed)
    ours = {"specdec": {"drafts": {"temperature": load.draft_temperature}}}
    own = {"dtype": load.dtype, "worker_cls": WORKER, "speculative_config": speculative, "additional_config": ours}
    llm = LLM(**{**arguments, **own})
    before = _counts(counters)
    for number, setting in enumerate(load.settings):
        params = SamplingParams(**setting, max_tokens=load.output_tokens, detokenize=False)
        for begin in range(0, len(load.prompts), size):
            prompts = [TokensPrompt(prompt_token_ids=ids) for ids in load.prompts[begin : begin + size]]
            outputs = [list(r.outputs[0].token_ids) for r in llm.generate(prompts, params, use_tqdm=False)]
            after = _counts(counters)
            counts = {name: [a - b for a, b in zip(after[name], before[name], strict=True)] for name in after}
            before = after
            reports.write(json.dumps(asdict(Part(number, counts, outputs))) + "\n")
            reports.flush()


def _counts(folder: Path) -> Counts:
    import numpy as np

    cells = sum(read_all(folder).values(), np.zeros(SIZE))
    return {name: values.tolist() for name, values in layout(cells).items()}


if __name__ == "__main__":
    main()
