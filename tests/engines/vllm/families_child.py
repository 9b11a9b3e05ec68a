"""Runs real vLLM engines one after the other and notes what they draft: JSON on stdin, a torch file as the answer.

    {"runs": {name: {LLM arguments}}, "prompt": [ids], "params": {SamplingParams}, "sampled": {SamplingParams},
     "output": path}
Answer: {name: {"token_ids": prompt and output, "drafts": [{"anchor": position, "next": id, "logits": [k, V]}],
"drafter": the class of the drafting model, "accepted": tokens, "sampled": {"drafted": tokens, "accepted": tokens}}}, or
{name: {"failed": "where the engine stopped"}}. Drafts are noted of one request; `sampled` are 64 more of it.
With a DeepSeek among the runs also {"rotary_error": see replace_rotary_kernel}.
"""

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def main() -> None:
    call = json.loads(sys.stdin.read())
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory

    if any("qwen3_5" in name for name in call["runs"]):
        stand_in_for_torchvision()
    found: dict[str, Any] = {}
    if any("deepseek" in name for name in call["runs"]):
        found["rotary_error"] = replace_rotary_kernel()
    for name, arguments in call["runs"].items():
        gc.freeze()  # vLLM collects garbage many times in a start, each time over all that has been imported
        try:
            found[name] = run(arguments, call)
        except Exception as error:  # told to the test, which knows which may fail, and why
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        gc.collect()
        cleanup_dist_env_and_memory()
    torch.save(found, call["output"])


def run(arguments: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """One engine."""
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    drafts: list[dict[str, Any]] = []
    forget = watch(runner.drafter, drafts)
    prompt = {"prompt_token_ids": call["prompt"]}
    (request,) = llm.generate([prompt], SamplingParams(**call["params"]), use_tqdm=False)
    before = counts(llm)
    forget()
    llm.generate([prompt] * 64, SamplingParams(**call["sampled"]), use_tqdm=False)
    return {
        "token_ids": [*call["prompt"], *request.outputs[0].token_ids],
        "drafts": drafts,
        "drafter": type(runner.drafter.model).__name__,
        "accepted": before["accepted"],
        "sampled": {name: number - before[name] for name, number in counts(llm).items()},
    }


def counts(llm: Any) -> dict[str, int]:
    metrics = {m.name: getattr(m, "value", 0) for m in llm.get_metrics()}
    return {
        "drafted": metrics["vllm:spec_decode_num_draft_tokens"],
        "accepted": metrics["vllm:spec_decode_num_accepted_tokens"],
    }


def watch(drafter: Any, drafts: list[dict[str, Any]]) -> Callable[[], None]:
    """Notes where each proposal starts, and the logits that the drafter samples from, until the answer is called."""
    propose, compute_logits = drafter.propose, drafter.model.compute_logits

    def noting_propose(**given: Any) -> Any:
        where = given["token_indices_to_sample"]
        last = -1 if where is None else int(where[0])
        anchor = int(given["target_positions"].reshape(-1, given["target_positions"].shape[-1])[0, last])
        drafts.append({"anchor": anchor, "next": int(given["next_token_ids"][0]), "logits": []})
        return propose(**given)

    def noting_logits(*given: Any, **named: Any) -> Any:
        logits = compute_logits(*given, **named)
        drafts[-1]["logits"].append(logits[0].float().clone())
        return logits

    def forget() -> None:
        del drafter.propose, drafter.model.compute_logits

    drafter.propose, drafter.model.compute_logits = noting_propose, noting_logits
    return forget


def replace_rotary_kernel() -> float:
    """vLLM 0.32's kernel for CPUs rotates pairs wrongly where there are several heads; its PyTorch form does not.

    Returns the largest difference of the two, on DeepSeek's shapes.
    """
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    with set_current_vllm_config(VllmConfig()):
        rotary = RotaryEmbedding(64, 64, 128, 10000.0, is_neox_style=False, dtype=torch.float32)
    positions, query, key = torch.arange(7), torch.randn(7, 4, 64), torch.randn(7, 1, 64)
    right, _ = rotary.forward_native(positions, query.clone(), key.clone())
    found, _ = rotary.forward_cpu(positions, query.clone(), key.clone())
    RotaryEmbedding.forward_cpu = RotaryEmbedding.forward_native
    return float((found - right).abs().max())


def stand_in_for_torchvision() -> None:
    """Qwen3.5's module imports image processing, whose library this build of vLLM lacks; text never calls it."""
    import importlib.abc
    import importlib.machinery
    import types

    import transformers.image_utils  # noqa: F401  what is asked for here must find that there is no torchvision

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            ours = name.split(".")[0] == "torchvision"
            return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

        def create_module(self, spec: Any) -> types.ModuleType:
            module = types.ModuleType(spec.name)
            module.__path__ = []
            return module

        def exec_module(self, module: types.ModuleType) -> None:
            if module.__name__ == "torchvision.transforms.v2":
                module.functional = types.ModuleType("functional")

    finder = Finder()
    sys.meta_path.append(finder)
    from vllm import ModelRegistry
    from vllm.model_executor.models import qwen3_5, qwen3_5_mtp

    sys.meta_path.remove(finder)
    # The classes themselves: vLLM looks at those that it knows by name in a process without this stand-in.
    for name in ("Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"):
        ModelRegistry.register_model(name, getattr(qwen3_5, name))
    for name in ("Qwen3_5MTP", "Qwen3_5MoeMTP"):
        ModelRegistry.register_model(name, getattr(qwen3_5_mtp, name))


if __name__ == "__main__":
    main()
