"""In the API server: a choice's readings, under its "specdec", in completions and chat completions, streamed or whole.

    {"index": 0, "text": ..., "specdec": {"features": [5, 123], "activations": [[0.0, 3.1], ...], "max": [...],
     "frequency": [...], "tokens": 24, "prompt": {"features": [...], "max": [...], "frequency": [...], "tokens": 9}}}

In a stream, an event carries the activations of the tokens that came with it, and max and frequency so far.
A request that asks for no reading goes its way untouched.
"""

import inspect
import json
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

from specdec.engines.vllm.patches import require
from specdec.engines.vllm.steering.carried import KEY
from specdec.engines.vllm.steering.outputs import ATTRIBUTE
from specdec.errors import SpecdecError
from specdec.steering.parts import as_object
from specdec.steering.program import Catalog
from specdec.steering.readings import Readings

COMPLETION = ("create_completion", "request_output_to_completion_response", "completion_stream_generator")
CHAT = ("create_chat_completion", "chat_completion_full_generator", "chat_completion_stream_generator")


@cache  # once per process
def patch_api_server() -> None:
    """Called by patches.py."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    for served, names in ((OpenAIServingCompletion, COMPLETION), (OpenAIServingChat, CHAT)):
        require(served.__name__, dir(served), *names)
        create, whole, stream = names
        setattr(served, create, _refusing(getattr(served, create), served))
        wrapped = _completion if served is OpenAIServingCompletion else _chat
        setattr(served, whole, wrapped(getattr(served, whole)))
        setattr(served, stream, _streamed(getattr(served, stream)))
    require("ResponsesRequest", dir(ResponsesRequest), "to_sampling_params")
    ResponsesRequest.to_sampling_params = _without_readings(  # type: ignore[method-assign]
        ResponsesRequest.to_sampling_params
    )


def asks(request: Any) -> bool:
    """Whether the request, of OpenAI's API, wants to read."""
    given = (request.vllm_xargs or {}).get(KEY)
    if not isinstance(given, str):
        return False
    try:
        found = as_object(given)
    except SpecdecError:
        return False  # refused where it is admitted
    return isinstance(found, dict) and found.get("read") is not None


def problem(request: Any, catalog: Catalog | None, whole_choices: bool) -> str | None:
    """Why the request's "specdec" cannot be served; None: it can, or there is none.

    whole_choices: whether the answer has places for readings.
    """
    given = (request.vllm_xargs or {}).get(KEY)
    if given is None or catalog is None:
        return None
    try:
        catalog.request(given)
    except SpecdecError as error:
        return str(error)
    if request.use_beam_search:
        return '"specdec" is not served with beam search: leave use_beam_search out'
    if asks(request) and not whole_choices:
        return '"read" is served by /v1/completions and /v1/chat/completions only'
    return None


def _refusing(create: Callable[..., Any], served: type) -> Callable[..., Any]:
    """vLLM checks a streamed request once its answer, HTTP 200, has begun. What is ours is checked before."""

    async def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        catalog = getattr(self.engine_client.input_processor, "specdec_catalog", None)
        found = problem(request, catalog, whole_choices=type(self) is served)
        return await create(self, request, *args, **kwargs) if found is None else self.create_error_response(found)

    return checked


def _without_readings(to_sampling_params: Callable[..., Any]) -> Callable[..., Any]:
    """The Responses API has no choices."""

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if asks(self):
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError('"read" is served by /v1/completions and /v1/chat/completions only')
        return to_sampling_params(self, *args, **kwargs)

    return checked


def _completion(whole: Callable[..., Any]) -> Callable[..., Any]:
    """Its choices stand in the order of the results' outputs."""

    def with_readings(self: Any, final_res_batch: list[Any], request: Any, *args: Any, **kwargs: Any) -> Any:
        response = whole(self, final_res_batch, request, *args, **kwargs)
        if asks(request):
            outputs = [output for result in final_res_batch for output in result.outputs]
            for choice, output in zip(response.choices, outputs, strict=True):
                _put(choice, output)
        return response

    return with_readings


def _chat(whole: Callable[..., Any]) -> Callable[..., Any]:
    async def with_readings(self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any) -> Any:
        if not asks(request):
            return await whole(self, request, result_generator, *args, **kwargs)
        outputs: dict[int, Any] = {}

        async def seen() -> AsyncIterator[Any]:
            async for result in result_generator:
                outputs.update((output.index, output) for output in result.outputs)
                yield result

        response = await whole(self, request, seen(), *args, **kwargs)
        for choice in getattr(response, "choices", ()):  # an error has none
            _put(choice, outputs[choice.index])
        return response

    return with_readings


def _put(choice: Any, output: Any) -> None:
    readings = getattr(output, ATTRIBUTE)
    if readings is not None:
        setattr(choice, KEY, readings.as_json())


def _streamed(stream: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(stream)

    def with_readings(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        request = bound.arguments["request"]
        if not asks(request):
            return stream(*args, **kwargs)
        waiting = Waiting(request.n or 1)
        bound.arguments["result_generator"] = waiting.watch(bound.arguments["result_generator"])
        return waiting.complete(stream(*bound.args, **bound.kwargs))

    return with_readings


class Waiting:
    """Readings of a stream, by choice, until an event of that choice goes out. n: choices of each prompt."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._readings: dict[int, Readings] = {}

    async def watch(self, results: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """results: of RequestOutputs, or of pairs of a prompt's number and one."""
        async for result in results:
            prompt, found = result if isinstance(result, tuple) else (0, result)
            for output in found.outputs:
                later, index = getattr(output, ATTRIBUTE), output.index + prompt * self._n
                if later is not None:
                    earlier = self._readings.get(index)
                    self._readings[index] = later if earlier is None else earlier.joined(later)
            yield result

    async def complete(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        """events: server-sent, as vLLM writes them."""
        async for event in events:
            yield self.completed(event)

    def completed(self, event: str) -> str:
        """The event, with what has come for its choices."""
        text = event.removeprefix("data: ").rstrip("\n")
        if not self._readings or not text.startswith("{"):
            return event
        found = json.loads(text)
        changed = False
        for choice in found.get("choices", ()):
            # A chat begins with an event for the role, which no token belongs to.
            if choice["index"] in self._readings and "role" not in choice.get("delta", {}):
                choice[KEY] = self._readings.pop(choice["index"]).as_json()
                changed = True
        return f"data: {json.dumps(found, ensure_ascii=False, separators=(',', ':'))}\n\n" if changed else event
