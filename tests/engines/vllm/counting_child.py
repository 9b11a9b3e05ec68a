"""One real engine whose counting is switched between rounds (engine.py's `ask_child`).

{"engine": {LLM arguments}, "prompts": [[ids]], "counting": [by round; null: as it was], "output": path}
"""

import json
from pathlib import Path
from typing import Any

from tests.engines.vllm.child import own_metrics


def main(call: dict[str, Any]) -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(**call["engine"])
    params = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)
    results, metrics = [], {}
    for number, on in enumerate(call["counting"]):
        if on is not None:
            llm.collective_rpc("specdec_count", args=(on,))
        # One after the other, for there have to be a few times as many steps as are between two exact looks.
        outputs = [llm.generate({"prompt_token_ids": ids}, params, use_tqdm=False)[0] for ids in call["prompts"]]
        results.append([{"token_ids": list(output.outputs[0].token_ids)} for output in outputs])
        metrics[str(number)] = own_metrics()
    Path(call["output"]).write_text(json.dumps({"results": results, "metrics": metrics}))
