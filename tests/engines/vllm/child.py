"""Runs one real vLLM engine, in a process of its own (forks.py): a call in, JSON out to the file named there.

    {"engine": {LLM arguments}, "fault": null | name in faults.py, "output": path,
     "jobs": [{"prompts": [[ids]], "repeat": 1, "params": {...}}]}
All jobs of a call share one batch, so requests with different parameters run side by side.
"""

import json
from pathlib import Path
from typing import Any


def main(call: dict[str, Any]) -> None:
    from vllm import LLM, SamplingParams

    if call.get("fault"):
        from tests.engines.vllm import faults

        faults.plant(call["fault"])
    llm = LLM(**call["engine"])
    prompts, params, owner = [], [], []
    for number, job in enumerate(call["jobs"]):
        for ids in job["prompts"]:
            for _ in range(job.get("repeat", 1)):
                prompts.append({"prompt_token_ids": ids})
                params.append(SamplingParams(**typed(job["params"])))
                owner.append(number)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    results: list[list[dict]] = [[] for _ in call["jobs"]]
    for number, output in zip(owner, outputs, strict=True):
        for completion in output.outputs:
            results[number].append(
                {
                    "token_ids": list(completion.token_ids),
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "logprobs": logprobs_of(completion.logprobs),
                }
            )
    metrics = {m.name: getattr(m, "value", getattr(m, "values", None)) for m in llm.get_metrics()}
    found = {"results": results, "metrics": metrics, "specdec": own_metrics(), "classes": _classes(llm)}
    Path(call["output"]).write_text(json.dumps(found))


def typed(params: dict) -> dict:
    from vllm.sampling_params import StructuredOutputsParams

    typed = dict(params)
    if "structured_outputs" in params:
        typed["structured_outputs"] = StructuredOutputsParams(**params["structured_outputs"])
    if "logit_bias" in params:  # JSON has no integer keys
        typed["logit_bias"] = {int(token): bias for token, bias in params["logit_bias"].items()}
    return typed


def _classes(llm: Any) -> dict[str, str]:
    """Modules of what works in this engine; empty where the workers live in processes of their own."""
    worker = getattr(llm.llm_engine.engine_core.engine_core.model_executor, "driver_worker", None)
    worker = getattr(worker, "worker", None)
    if worker is None:
        return {}
    runner = worker.model_runner
    if worker.use_v2_model_runner:
        return {"worker": type(worker).__module__, "sample": type(runner.sampler).__module__}
    return {
        "worker": type(worker).__module__,
        "sample": runner._sample.__func__.__module__,
        "drafter": type(getattr(runner, "drafter", None)).__module__,
    }


def logprobs_of(rows: list | None) -> list | None:
    if rows is None:
        return None
    return [{str(token): value.logprob for token, value in row.items()} for row in rows]


APART = ("position", "entropy", "phase")  # labels


def own_metrics() -> dict[str, float]:
    """Every specdec_ sample of this process's registry, as /metrics would show it: name{position} -> value; likewise
    with the entropy's bucket, or the phase, for a position."""
    from prometheus_client import REGISTRY

    return {
        sample.name + "".join(f"{{{sample.labels[name]}}}" for name in APART if name in sample.labels): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("specdec_") and "le" not in sample.labels
    }
