"""What the prefix cache may share.

A block's hash covers the tokens before it, so it is enough to mark the first block that a program touches: those
behind it differ as well. A program for all tokens touches the first; one for generated tokens the first that reaches
behind the prompt, marked with the prompt's length, because in the next turn the same tokens are part of a prompt, and
not steered. Prompts of such programs are shared with everyone's. A user's own cache_salt goes into the hash besides.
"""

from typing import Any

from specdec.engines.vllm.steering.carried import program_of


def patch_block_hashes() -> None:
    """Called by patches.py, in every process. vLLM asks this function about every block that it hashes."""
    from vllm.v1.core import kv_cache_utils

    original = kv_cache_utils._gen_prompt_embeds_extra_hash_keys

    def with_program(request: Any, start: int, end: int) -> list[tuple[str, Any]]:
        return [*original(request, start, end), *block_keys(request, start, end)]

    kv_cache_utils._gen_prompt_embeds_extra_hash_keys = with_program  # type: ignore[assignment]


def block_keys(request: Any, start: int, end: int) -> list[tuple[str, str]]:
    """Of the block that holds the request's tokens from start up to end."""
    program = program_of(request.sampling_params)
    if program is None:
        return []
    if program.on == "all":
        return [("specdec", program.key)] if start == 0 else []
    prompt = request.num_prompt_tokens
    return [("specdec", f"{program.key} behind {prompt}")] if start <= prompt < end else []
