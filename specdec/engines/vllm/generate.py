"""Text sampled by the target itself, through vLLM: what a head learns best from."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.engines.command import cpu_environment
from specdec.engines.installed import require_vllm


@dataclass(frozen=True)
class Sampling:
    """How the target goes on from each prompt.

    concurrency: requests in the engine's batch at most; eager: do not compile the model first.
    """

    output_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    concurrency: int = 64
    eager: bool = False


def continuations(model: Path, prompts: Sequence[list[int]], first: int, how: Sampling) -> Iterator[list[int]]:
    """Token ids that the model goes on with from each prompt, in their order, the end-of-text token left off.

    Prompt number i (counted from `first`) is sampled with seed (how.seed, i), so a part of the list gives the same as
    the whole, as far as the engine's arithmetic does not depend on the batch.
    """
    engine = require_vllm()
    if engine.cpu_only:
        os.environ.update({k: v for k, v in cpu_environment(os.environ).items() if k != "LD_PRELOAD"})
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    longest = max(map(len, prompts)) + how.output_tokens
    llm = LLM(**engine_arguments(model, longest, how.concurrency, how.eager, how.seed))
    ends = llm.get_tokenizer().eos_token_id
    block = 8 * how.concurrency  # enough to keep the batch full, little enough to be kept when interrupted
    for begin in range(0, len(prompts), block):
        part = prompts[begin : begin + block]
        params = [
            SamplingParams(
                temperature=how.temperature, top_p=how.top_p, max_tokens=how.output_tokens,
                seed=(how.seed << 32) + first + begin + i, detokenize=False,
            )
            for i in range(len(part))
        ]  # fmt: skip
        for request in llm.generate([TokensPrompt(prompt_token_ids=p) for p in part], params, use_tqdm=False):
            ids = list(request.outputs[0].token_ids)
            yield ids[:-1] if ids and ids[-1] == ends else ids


def engine_arguments(model: Path, longest: int, concurrency: int, eager: bool, seed: int) -> dict[str, Any]:
    """Of an engine that samples plainly. longest: tokens of a prompt and its output."""
    return {
        "model": str(model), "max_model_len": longest + 1, "max_num_seqs": concurrency, "enforce_eager": eager,
        "seed": seed, "enable_prefix_caching": False, "disable_log_stats": True, "generation_config": "vllm",
        # A seeded request whose prompt is cut into chunks kills vLLM on a CPU ("CPU Generator does not use offset").
        "enable_chunked_prefill": False,
    }  # fmt: skip
