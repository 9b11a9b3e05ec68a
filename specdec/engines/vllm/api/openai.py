"""In the API server: a choice's answer, under its "specdec", in completions and chat completions, streamed or whole,
and in batches of chats.

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
from specdec.engines.vllm.api.asked import asks, problem
from specdec.engines.vllm.api.carried import KEY
from specdec.engines.vllm.api.elsewhere import class_of, patch_elsewhere
from specdec.engines.vllm.api.outputs import ATTRIBUTE
from specdec.engines.vllm.patches import require

COMPLETION = ("create_completion", "request_output_to_completion_response", "completion_stream_generator")
BATCH = ("create_batch_chat_completion", "chat_completion_full_generator_batch")
CHAT = ("create_chat_completion", "chat_completion_full_generator", "chat_completion_stream_generator")


@cache  # once per process
def patch_api_server() -> None:
    """Called by patches.py."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    for served, names in ((OpenAIServingCompletion, COMPLETION), (OpenAIServingChat, CHAT)):
        require(served.__name__, dir(served), *names)
        create, whole, stream = names
        setattr(served, create, _refusing(getattr(served, create), served))
        wrapped = _completion if served is OpenAIServingCompletion else _chat
        setattr(served, whole, wrapped(getattr(served, whole)))
        setattr(served, stream, _streamed(getattr(served, stream)))
    batch = class_of("OpenAIServingChatBatch", "vllm.entrypoints.openai.chat_completion.batch_serving")
    if batch is not None:
        require(batch.__name__, dir(batch), *BATCH)
        create, whole = BATCH
        setattr(batch, create, _refusing(getattr(batch, create), batch))
        setattr(batch, whole, _batch(getattr(batch, whole)))
    patch_elsewhere()


def _refusing(create: Callable[..., Any], served: type) -> Callable[..., Any]:
    """vLLM checks a streamed request once its answer, HTTP 200, has begun. What is ours is checked before."""

    async def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        offer = getattr(self.engine_client.input_processor, "specdec_offer", None)
        found = problem(request, offer, whole_choices=type(self) is served)
        return await create(self, request, *args, **kwargs) if found is None else self.create_error_response(found)

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
        return _filled(await whole(self, request, _seen(result_generator, outputs), *args, **kwargs), outputs)

    return with_answers


def _batch(whole: Callable[..., Any]) -> Callable[..., Any]:
    """One choice for each conversation."""

    async def with_answers(self: Any, request: Any, generators: list[Any], *args: Any, **kwargs: Any) -> Any:
        if not asks(request):
            return await whole(self, request, generators, *args, **kwargs)
        outputs: dict[int, Any] = {}
        watched = [_seen(results, outputs, first=number) for number, results in enumerate(generators)]
        return _filled(await whole(self, request, watched, *args, **kwargs), outputs)

    return with_answers


async def _seen(results: AsyncIterator[Any], outputs: dict[int, Any], first: int = 0) -> AsyncIterator[Any]:
    """The results as they come, whose outputs are noted by choice; first: that of output 0."""
    async for result in results:
        outputs.update((first + output.index, output) for output in result.outputs)
        yield result


def _filled(response: Any, outputs: dict[int, Any]) -> Any:
    for choice in getattr(response, "choices", ()):  # an error has none
        _put(choice, outputs[choice.index])
    return response


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
