"""What the adapters of both model runners need: seeds, counters, the bound on kept rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from vllm.v1.outputs import ModelRunnerOutput

from specdec.config import MetricsSettings, Settings
from specdec.drafting import NEUTRAL, DraftScales, load_calibration
from specdec.engines.vllm.drafts import row_bytes
from specdec.engines.vllm.requests import Admissions
from specdec.errors import SpecdecError
from specdec.metrics.cells import DIRECTORY_VARIABLE
from specdec.metrics.counters import TenantCounters


def admissions_of(runner: Any) -> Admissions:
    """runner: a model runner, V1 or V2."""
    model = runner.model_config
    return Admissions(model.seed or 0, model.get_vocab_size(), runner.parallel_config.data_parallel_index)


def draft_scales_of(runner: Any, settings: Settings) -> DraftScales | None:
    """The draft scales that the settings ask for, of the runner's head; None: all are 1 for good."""
    mode = settings.drafts.temperature
    calibration = NEUTRAL if mode == "same" else load_calibration(runner.speculative_config.draft_model_config.model)
    return DraftScales(calibration, runner.device, mode == "auto") if mode == "auto" or calibration != NEUTRAL else None


def scaled_logits(
    model: Any, hidden_states: torch.Tensor, scale: torch.Tensor | None, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Logits [B, V] that `compute` makes of hidden states [B, d], times scale [B] (None: 1).

    Where the model says that they are linear, the hidden states are scaled, which are far fewer.
    """
    if scale is None:
        return compute(hidden_states)
    if getattr(model, "logits_are_linear", False):
        return compute(hidden_states * scale[:, None].to(hidden_states.dtype))
    logits = compute(hidden_states)
    return logits * scale[:, None].to(logits.dtype)


def when_removed(runner: Any, forget: Callable[[str], object]) -> None:
    """The V1 runner calls `forget` with the id of each request that is over."""
    before = runner._on_request_state_removed

    def removed(request_id: str, state: Any) -> None:
        before(request_id, state)
        forget(request_id)

    runner._on_request_state_removed = removed


def when_on_host(output: Any, then: Callable[[ModelRunnerOutput], object]) -> None:
    """Calls `then` with a step's output once that is on the host, and with it all that was copied there before.

    output: what a runner's `sample_tokens` returned. A ModelRunnerOutput has its tokens on the host. One that is still
    on its way is there when it is read: its copy waits for all that came before it on the device, and `get_output` for
    its copy.
    """
    if isinstance(output, ModelRunnerOutput):
        then(output)
    if not hasattr(output, "get_output"):
        return
    before = vars(output).get("get_output")

    def get_output() -> ModelRunnerOutput:
        # The class's own again: otherwise the output would hold itself, and its memory, until a full collection.
        del output.get_output
        if before is not None:
            output.get_output = before
        found = output.get_output()
        then(found)
        return found

    output.get_output = get_output


def make_counters(runner: Any, settings: MetricsSettings) -> TenantCounters:
    served = runner.model_config.served_model_name
    path = os.environ.get(DIRECTORY_VARIABLE)
    labels = {"model_name": served if isinstance(served, str) else served[0], "head": _head_of(runner)}
    return TenantCounters(Path(path) if path else None, labels, settings.max_tenants)


def _head_of(runner: Any) -> str:
    """A name for what drafts: the last part of its path, or how vLLM calls the method where the model brings it."""
    speculative = runner.speculative_config
    head, own = speculative.draft_model_config, runner.model_config.model
    return str(speculative.method) if head is None or head.model == own else Path(head.model).name


def kept_requests(settings: Settings, num_drafts: int, vocab_size: int, dtype: torch.dtype) -> int | None:
    """How many requests' draft rows fit into what the settings allow; None: there is no bound."""
    if settings.drafts.kept_mib is None:
        return None
    request = num_drafts * row_bytes(vocab_size, dtype)
    count = int(settings.drafts.kept_mib * 2**20 / request)
    if count < 1:
        raise SpecdecError(
            f"drafts.kept_mib {settings.drafts.kept_mib:g} does not hold one request's draft rows, which take "
            f"{request / 2**20:.2f} MiB: raise it, or use greedy drafts, which keep no rows"
        )
    return count
