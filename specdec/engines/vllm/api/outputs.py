"""In the API process, and wherever `LLM.generate` runs: a completion's `specdec`, its Answer; None: none was asked for.

Readings are aligned with the completion's token_ids: all of them, or in a stream of deltas the new ones.
"""

from functools import cache
from typing import Any

from specdec.answer import AnswerCollector
from specdec.engines.vllm.api.carried import answer_of
from specdec.engines.vllm.api.route import detach
from specdec.engines.vllm.patches import require

ATTRIBUTE = "specdec"  # of a CompletionOutput
COLLECTOR = "specdec_collector"  # of a RequestState


@cache  # once per process
def patch_outputs() -> None:
    """Called by patches.py."""
    _collect()
    _give()


def _collect() -> None:
    from vllm.v1.engine.output_processor import OutputProcessor

    require("OutputProcessor", dir(OutputProcessor), "add_request", "process_outputs")
    add, process = OutputProcessor.add_request, OutputProcessor.process_outputs

    def add_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        add(self, request, *args, **kwargs)
        asked = answer_of(request.sampling_params)
        state = self.request_states.get(request.request_id)
        if asked is not None and state is not None and not hasattr(state, COLLECTOR):
            setattr(state, COLLECTOR, AnswerCollector(asked))

    def process_outputs(self: Any, engine_core_outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        for output in engine_core_outputs:
            state = self.request_states.get(output.request_id)
            collector = getattr(state, COLLECTOR, None)
            entry = None if collector is None else detach(output)
            if collector is not None and entry is not None:
                collector.take(entry)
        return process(self, engine_core_outputs, *args, **kwargs)

    OutputProcessor.add_request = add_request  # type: ignore[method-assign]
    OutputProcessor.process_outputs = process_outputs  # type: ignore[method-assign]


def _give() -> None:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.output_processor import RequestState

    require("RequestState", dir(RequestState), "_new_completion_output")
    require("RequestOutput", dir(RequestOutput), "add")
    make, add = RequestState._new_completion_output, RequestOutput.add

    def new_completion_output(self: Any, token_ids: list[int], *args: Any, **kwargs: Any) -> Any:
        completion = make(self, token_ids, *args, **kwargs)
        collector = getattr(self, COLLECTOR, None)
        if collector is not None:
            new = len(token_ids) if self.output_kind == RequestOutputKind.DELTA else None
            setattr(completion, ATTRIBUTE, collector.give(self.detokenizer.num_output_tokens(), new))
        return completion

    def add_output(self: Any, next_output: Any, aggregate: bool) -> None:
        """Deltas that nobody has fetched are joined. So are their answers."""
        mine = {completion.index: completion for completion in self.outputs}
        add(self, next_output, aggregate)
        for later in next_output.outputs:
            earlier = mine.get(later.index)
            if aggregate and earlier is not None and getattr(later, ATTRIBUTE) is not None:
                setattr(earlier, ATTRIBUTE, getattr(earlier, ATTRIBUTE).joined(getattr(later, ATTRIBUTE)))

    setattr(CompletionOutput, ATTRIBUTE, None)
    RequestState._new_completion_output = new_completion_output  # type: ignore[method-assign]
    RequestOutput.add = add_output  # type: ignore[method-assign]
