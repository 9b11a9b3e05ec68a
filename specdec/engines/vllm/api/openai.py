"""In the API server: a choice's answer, under its "specdec", in completions and chat completions, streamed or whole.

    {"index": 0, "text": ..., "specdec": {
      "read": {"features": [5, 123], "activations": [[0.0, 3.1], ...], "max": [...], "frequency": [...], "tokens": 24,
               "prompt": {"features": [...], "max": [...], "frequency": [...], "tokens": 9}},
      "figures": {"tokens": 24, "steps": 10, "accepted": [8, 4, 2], "acceptance_length": 2.4, ...}}}

In a stream, an event carries the activations of the tokens that came with it; max, frequency and figures are of all so
far. A request that asks for neither goes its way untouched.
"""

import inspect
import json
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

from specdec.answer import Answer
from specdec.engines.vllm.api.admission import admissible
from specdec.engines.vllm.api.carried import KEY
from specdec.engines.vllm.api.outputs import ATTRIBUTE
from specdec.engines.vllm.patches import require
from specdec.errors import SpecdecError
from specdec.request import Offer
from specdec.steering.parts import as_object

COMPLETION = ("create_completion", "request_output_to_completion_response", "completion_stream_generator")
ELSEWHERE = '"read" and "figures" are served by /v1/completions and /v1/chat/completions only'
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
    ResponsesRequest.to_sampling_params = _without_answers(  # type: ignore[method-assign]
        ResponsesRequest.to_sampling_params
    )


def asks(request: Any) -> bool:
    """Whether the request, of OpenAI's API, wants something of ours in its answer."""
    given = (request.vllm_xargs or {}).get(KEY)
    if not isinstance(given, str):
        return False
    try:
        found = as_object(given)
    except SpecdecError:
        return False  # refused where it is admitted
    return isinstance(found, dict) and (found.get("read") is not None or found.get("figures") is True)


def problem(request: Any, offer: Offer | None, whole_choices: bool) -> str | None:
    """Why the request's "specdec" cannot be served; None: it can, or there is none.

    whole_choices: whether the answer has a place for ours.
    """
    given = (request.vllm_xargs or {}).get(KEY)
    if given is None:
        return None
    try:
        admissible(given, offer)
    except SpecdecError as error:
        return str(error)
    if request.use_beam_search:
        return '"specdec" is not served with beam search: leave use_beam_search out'
    if asks(request) and not whole_choices:
        return ELSEWHERE
    return None


def _refusing(create: Callable[..., Any], served: type) -> Callable[..., Any]:
    """vLLM checks a streamed request once its answer, HTTP 200, has begun. What is ours is checked before."""

    async def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        offer = getattr(self.engine_client.input_processor, "specdec_offer", None)
        found = problem(request, offer, whole_choices=type(self) is served)
        return await create(self, request, *args, **kwargs) if found is None else self.create_error_response(found)

    return checked


def _without_answers(to_sampling_params: Callable[..., Any]) -> Callable[..., Any]:
    """The Responses API has no choices."""

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if asks(self):
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(ELSEWHERE)
        return to_sampling_params(self, *args, **kwargs)

    return checked


def _completion(whole: Callable[..., Any]) -> Callable[..., Any]:
    """Its choices stand in the order of the results' outputs."""

    def with_answers(self: Any, final_res_batch: list[Any], request: Any, *args: Any, **kwargs: Any) -> Any:
        response = whole(self, final_res_batch, request, *args, **kwargs)
        if asks(request):
            outputs = [output for result in final_res_batch for output in result.outputs]
            for choice, output in zip(response.choices, outputs, strict=True):
                _put(choice, output)
        return response

    return with_answers


def _chat(whole: Callable[..., Any]) -> Callable[..., Any]:
    async def with_answers(self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any) -> Any:
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

    return with_answers


def _put(choice: Any, output: Any) -> None:
    answer = getattr(output, ATTRIBUTE)
    if answer is not None:
        setattr(choice, KEY, answer.as_json())


def _streamed(stream: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(stream)

    def with_answers(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        request = bound.arguments["request"]
        if not asks(request):
            return stream(*args, **kwargs)
        waiting = Waiting(request.n or 1)
        bound.arguments["result_generator"] = waiting.watch(bound.arguments["result_generator"])
        return waiting.complete(stream(*bound.args, **bound.kwargs))

    return with_answers


class Waiting:
    """Answers of a stream, by choice, until an event of that choice goes out. n: choices of each prompt."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._answers: dict[int, Answer] = {}

    async def watch(self, results: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """results: of RequestOutputs, or of pairs of a prompt's number and one."""
        async for result in results:
            prompt, found = result if isinstance(result, tuple) else (0, result)
            for output in found.outputs:
                later, index = getattr(output, ATTRIBUTE), output.index + prompt * self._n
                if later is not None:
                    earlier = self._answers.get(index)
                    self._answers[index] = later if earlier is None else earlier.joined(later)
            yield result

    async def complete(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        """events: server-sent, as vLLM writes them."""
        async for event in events:
            yield self.completed(event)

    def completed(self, event: str) -> str:
        """The event, with what has come for its choices."""
        text = event.removeprefix("data: ").rstrip("\n")
        if not self._answers or not text.startswith("{"):
            return event
        found = json.loads(text)
        changed = False
        for choice in found.get("choices", ()):
            # A chat begins with an event for the role, which no token belongs to.
            if choice["index"] in self._answers and "role" not in choice.get("delta", {}):
                choice[KEY] = self._answers.pop(choice["index"]).as_json()
                changed = True
        return f"data: {json.dumps(found, ensure_ascii=False, separators=(',', ':'))}\n\n" if changed else event
