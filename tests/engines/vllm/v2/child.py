"""As tests/engines/vllm/child.py, with the V2 model runner and, by choice, asynchronous scheduling and aborts.

    {"engine": ..., "jobs": ..., "output": ..., "asynchronous": bool, "aborts": requests to break off on the way,
     "workspace": bytes for copies of target rows, or null for what it is}
The requests to break off are further ones, with the settings of the first job.
"""

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.engines.vllm.child import logprobs_of, own_metrics, typed
from tests.engines.vllm.v2 import interpreter


def main(call: dict[str, Any]) -> None:
    if call["asynchronous"]:
        interpreter.schedule_asynchronously()
    from vllm import LLM

    parts = count_parts(call["workspace"])

    llm = LLM(**call["engine"])
    results = run(llm, call["jobs"], call["aborts"])
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    core = llm.llm_engine.engine_core.engine_core
    found = {
        "results": results,
        "metrics": {m.name: getattr(m, "value", getattr(m, "values", None)) for m in llm.get_metrics()},
        "specdec": own_metrics(),
        "classes": {
            "runner": type(worker.model_runner).__mro__[1].__module__,
            "sampler": type(worker.model_runner.sampler).__module__,
            "scheduler": type(core.scheduler).__name__,
            "in_flight": str(0 if core.batch_queue is None else core.batch_queue_size),
            "parts of a step": f"{min(parts)} to {max(parts)}",
        },
    }
    Path(call["output"]).write_text(json.dumps(found))


def count_parts(workspace: int | None) -> set[int]:
    """Grows by the numbers of parts in which the steps are verified."""
    from specdec.engines.vllm.v2 import verifier
    from specdec.engines.vllm.v2.batch import Layout

    found: set[int] = set()
    ranges = Layout.ranges

    def counted(layout: Layout, most: int) -> list[tuple[int, int]]:
        made = ranges(layout, most)
        found.add(len(made))
        return made

    Layout.ranges = counted
    verifier.WORKSPACE = workspace or verifier.WORKSPACE
    return found


def run(llm: Any, jobs: list[dict], aborts: int) -> list[list[dict]]:
    """All jobs of a call side by side; a request to break off comes in whenever another one has ended."""
    from vllm import SamplingParams

    engine = llm.llm_engine
    owner: dict[str, int] = {}
    results: list[list[dict]] = [[] for _ in jobs]
    for number, job in enumerate(jobs):
        for ids in job["prompts"]:
            for repeat in range(job.get("repeat", 1)):
                request_id = f"{number}-{len(owner)}-{repeat}"
                owner[request_id] = number
                engine.add_request(request_id, {"prompt_token_ids": ids}, SamplingParams(**typed(job["params"])))
    to_break_off, running = further(jobs[0], aborts), []
    done = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished and output.request_id in owner:
                done[output.request_id] = output.outputs[0]
                engine.abort_request(running)
                running = []
                for request_id, prompt, params in islice(to_break_off, 1):
                    engine.add_request(request_id, prompt, params)
                    running.append(request_id)
    for request_id, number in owner.items():  # in the order of the jobs, as everywhere
        completion = done[request_id]
        answer = getattr(completion, "specdec", None)
        results[number].append(
            {
                "token_ids": list(completion.token_ids),
                "text": completion.text,
                "finish_reason": completion.finish_reason,
                "logprobs": logprobs_of(completion.logprobs),
                "readings": None if answer is None else answer.read.as_json(),
            }
        )
    return results


def further(job: dict, count: int) -> Iterator[tuple[str, dict, Any]]:
    from vllm import SamplingParams

    for number, ids in zip(range(count), cycle(job["prompts"]), strict=False):
        yield f"abort-{number}", {"prompt_token_ids": ids}, SamplingParams(**{**typed(job["params"]), "max_tokens": 64})
