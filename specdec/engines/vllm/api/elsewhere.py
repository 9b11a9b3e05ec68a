"""Endpoints whose answers have no place for ours: a request that asks for one is refused there, with HTTP 400. They
steer as the others do.

Further ones need nothing: what subclasses OpenAIServingChat (Messages, Cohere's) is refused in openai.py, and the
render endpoints hand on to `generate`.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from specdec.engines.vllm.api.asked import ELSEWHERE, MISPLACED, asks, misplaced, wants
from specdec.engines.vllm.api.carried import KEY

# By class, the modules where it is or was in a vLLM that we support; an endpoint that is nowhere is not served.
REQUESTS = {
    "ResponsesRequest": ("vllm.entrypoints.openai.responses.protocol",),
    "TranscriptionRequest": (
        "vllm.entrypoints.speech_to_text.transcription.protocol", "vllm.entrypoints.openai.speech_to_text.protocol",
    ),
    "TranslationRequest": (
        "vllm.entrypoints.speech_to_text.translation.protocol", "vllm.entrypoints.openai.speech_to_text.protocol",
    ),
}  # fmt: skip
GENERATE = ("vllm.entrypoints.scale_out.token_in_token_out.serving", "vllm.entrypoints.serve.disagg.serving")


def patch_elsewhere() -> None:
    """Called by openai.py."""
    for name, modules in REQUESTS.items():
        request = class_of(name, *modules)
        if request is not None:
            request.to_sampling_params = _refusing(request.to_sampling_params)
    tokens = class_of("ServingTokens", *GENERATE)  # /inference/v1/generate
    if tokens is not None:
        tokens.serve_tokens = _refusing_tokens(tokens.serve_tokens)


def class_of(name: str, *modules: str) -> Any:
    """The class, of the first module that this vLLM has with it; None: there is none."""
    found = (getattr(import_module(module), name, None) for module in modules if _exists(module))
    return next((one for one in found if one is not None), None)


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def _refusing(to_sampling_params: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if misplaced(self) or asks(self):
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(MISPLACED if misplaced(self) else ELSEWHERE)
        return to_sampling_params(self, *args, **kwargs)

    return checked


def _refusing_tokens(serve: Callable[..., Any]) -> Callable[..., Any]:
    """Its requests bring SamplingParams as they are."""

    async def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if wants((request.sampling_params.extra_args or {}).get(KEY)):
            return self.create_error_response(ELSEWHERE)
        return await serve(self, request, *args, **kwargs)

    return checked
