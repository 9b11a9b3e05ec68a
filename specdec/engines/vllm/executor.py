"""vLLM's multi-process executor, with the draft ids coming along with the step's output.

vLLM's engine asks the worker for the new draft ids in a call of its own after each step. By then the step's output is
on its way to the API server, so on a machine with few cores the engine waits for the answer while the API server has
its core. Here the worker sends both in one message.
"""

from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

# Attribute of a ModelRunnerOutput on its way from worker to engine: a tuple of one, DraftTokenIds or None.
CARRIED = "specdec_draft_token_ids"


def carry(output: Any, draft_token_ids: DraftTokenIds | None) -> None:
    """Worker side: lay the ids beside a step's output."""
    setattr(output, CARRIED, (draft_token_ids,))


class CarryingExecutor(MultiprocExecutor):
    """Chosen by patches.py in the place of MultiprocExecutor."""

    _carried: tuple[DraftTokenIds | None] | None = None

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        output = super().sample_tokens(grammar_output, non_block)
        # A future (several batches in flight) is left alone: its ids are asked for as vLLM does.
        self._carried = getattr(output, CARRIED, None) if isinstance(output, ModelRunnerOutput) else None
        return output

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        carried, self._carried = self._carried, None
        return carried[0] if carried is not None else super().take_draft_token_ids()
