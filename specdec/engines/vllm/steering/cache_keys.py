"""What the prefix cache may share.

A block's hash covers the tokens before it, so it is enough to mark the first block that a program touches: those
behind it differ as well. A program for all tokens touches the first; one for generated tokens the first that reaches
behind the prompt, marked with the prompt's length, because in the next turn the same tokens are part of a prompt, and
not steered. Prompts of such programs are shared with everyone's. A user's own cache_salt goes into the hash besides.
"""

from typing import Any

from specdec.engines.vllm.api.carried import program_of
from specdec.engines.vllm.patches import require

ASKED = "_gen_prompt_embeds_extra_hash_keys"


def patch_block_hashes() -> None:
    """Called by patches.py, in every process. vLLM asks the function ASKED about every block that it hashes; a version
    without it is told of by check_block_hashes, where steering is wanted.
    """
    from vllm.v1.core import kv_cache_utils

    original = getattr(kv_cache_utils, ASKED, None)
    if original is None:
        return

    def with_program(request: Any, start: int, end: int) -> list[tuple[str, Any]]:
        return [*original(request, start, end), *block_keys(request, start, end)]

    setattr(kv_cache_utils, ASKED, with_program)


def check_block_hashes() -> None:
    """SpecdecError: this vLLM would share blocks between programs."""
    from vllm.v1.core import kv_cache_utils

    require("kv_cache_utils", dir(kv_cache_utils), ASKED)


def block_keys(request: Any, start: int, end: int) -> list[tuple[str, str]]:
    """Of the block that holds the request's tokens from start up to end."""
    program = program_of(request.sampling_params)
    if program is None:
        return []
    if program.on == "all":
        return [("specdec", program.key)] if start == 0 else []
    prompt = request.num_prompt_tokens
    return [("specdec", f"{program.key} behind {prompt}")] if start <= prompt < end else []
