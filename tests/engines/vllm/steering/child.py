"""Runs one real vLLM engine in a process of its own: rounds of requests, one round after the other.

    {"engine": {LLM arguments}, "output": path, "rounds": [[{"ids": [...], "params": {...}, "salt": null | text}]]}
Answers {"rounds": [[{"token_ids": [...], "cached": tokens found in the prefix cache}]], "metrics": {...}}; a request
that is refused answers {"refused": text}. Of all n completions: "all" tokens, and "readings" as JSON, or null.
"""

import json
from pathlib import Path
from typing import Any


def main(call: dict[str, Any]) -> None:
    from vllm import LLM

    llm = LLM(**call["engine"])
    rounds = [_round(llm, requests) for requests in call["rounds"]]
    metrics = {m.name: getattr(m, "value", None) for m in llm.get_metrics()}
    Path(call["output"]).write_text(json.dumps({"results": rounds, "metrics": metrics}))


def _round(llm: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    found: dict[str, dict[str, Any]] = {}
    for number, request in enumerate(requests):
        prompt = {"prompt_token_ids": request["ids"]}
        if request.get("salt"):
            prompt["cache_salt"] = request["salt"]
        found[str(number)] = {}
        params = SamplingParams(**request["params"])
        if params.n > 1:  # otherwise each output has one completion
            params.output_kind = RequestOutputKind.FINAL_ONLY
        try:
            engine.add_request(str(number), prompt, params)
        except (ValueError, VLLMValidationError) as error:
            found[str(number)] = {"refused": str(error)}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                tokens = [list(completion.token_ids) for completion in output.outputs]
                given = [getattr(completion, "specdec", None) for completion in output.outputs]
                readings = [None if one is None else one.read.as_json() for one in given]
                found[output.request_id] = {
                    "token_ids": tokens[0], "all": tokens, "cached": output.num_cached_tokens,
                    "readings": readings, "kv": output.kv_transfer_params,
                }  # fmt: skip
    return list(found.values())
