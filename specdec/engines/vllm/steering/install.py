"""Steering in a worker: what the settings name is loaded, hooked in, and told of every step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.config import Settings
from specdec.engines.vllm.api.carried import request_of
from specdec.engines.vllm.patches import require
from specdec.engines.vllm.shared import when_removed
from specdec.engines.vllm.steering.cache_keys import check_block_hashes
from specdec.engines.vllm.steering.layers import install_hooks, steered_layer
from specdec.engines.vllm.steering.programs import Programs
from specdec.engines.vllm.steering.readers import Found, Readers
from specdec.engines.vllm.steering.rows import Rows
from specdec.engines.vllm.steering.sources import Sources, load_sources
from specdec.errors import SpecdecError
from specdec.steering.change import Table
from specdec.steering.compile import Compiler


def sources_of(vllm_config: Any, settings: Settings) -> Sources | None:
    """None: this server does not steer. SpecdecError: see load_sources; a combination that cannot be steered."""
    if not settings.steering.enabled:
        return None
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        raise SpecdecError("steering with pipeline_parallel_size > 1 is not supported: use tensor parallelism")
    passes = vllm_config.compilation_config.pass_config
    if getattr(passes, "enable_sp", False):
        raise SpecdecError("steering with sequence parallelism (enable_sp) is not supported: leave it out")
    check_block_hashes()
    if settings.steering.max_read:
        from vllm.sampling_params import SamplingParams

        require("SamplingParams", dir(SamplingParams), "skip_reading_prefix_cache")
    return load_sources(settings.steering, vllm_config.model_config.hf_text_config)


class Steering:
    """One worker's. model: as loaded, before its first forward pass. reports: whether its readings are wanted: of
    the tensor-parallel ranks, which all see the same stream, one does.
    """

    def __init__(
        self, vllm_config: Any, settings: Settings, sources: Sources, model: Any, device: torch.device, reports: bool
    ) -> None:
        steering = settings.steering
        config = vllm_config.model_config.hf_text_config
        saes = {name: sae.to(device) for name, sae in sources.saes.items()}
        compiler = Compiler(saes, sources.vectors)
        tables = {
            layer: Table(steering.max_programs, steering.max_edits, config.hidden_size, device)
            for layer in sources.layers
        }
        max_rows = vllm_config.scheduler_config.max_num_batched_tokens
        readable = {sae.layer for sae in saes.values()} if steering.max_read and reports else set()
        dtype = vllm_config.model_config.dtype
        layers = {
            n: steered_layer(table, compiler.rankings[n], max_rows, dtype if n in readable else None)
            for n, table in tables.items()
        }
        context = vllm_config.compilation_config.static_forward_context
        install_hooks(model, layers, config.num_hidden_layers, context)
        self._programs = Programs(compiler, tables, steering.max_programs)
        self._rows = Rows(layers, self._programs, device)
        self._readers = Readers(saes, layers, device) if readable else None
        self._asking: set[str] = set()  # requests that steer or read

    def begin(self, scheduled: Any) -> None:
        """Before each step; see Readers.begin."""
        new = scheduled.scheduled_new_reqs
        self._asking -= scheduled.finished_req_ids
        self._asking.update(one.req_id for one in new if request_of(one.sampling_params) is not None)
        if self._readers is not None:
            self._readers.begin(scheduled)

    def rests(self) -> bool:
        """Whether no request asks for anything, so that the forward pass to come needs no `prepare`."""
        if not self._asking:
            self._rows.rest()
        return not self._asking

    def prepare(
        self, request_ids: Sequence[str], params: Sequence[object], prompt_lengths: Sequence[int], counts: np.ndarray,
        positions: Tensor,
    ) -> None:  # fmt: skip
        """Before each forward pass of the target; see Rows.prepare."""
        self._rows.prepare(request_ids, params, prompt_lengths, counts, positions)
        if self._readers is not None:
            self._readers.prepare(request_ids, params, prompt_lengths, counts)

    def readings(self) -> Found | None:
        """Of the last forward pass, once; None where nobody reads."""
        return None if self._readers is None else self._readers.finish()

    def in_use(self) -> int:
        """Different programs of the requests that run."""
        return self._programs.in_use

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._programs.release(request_id)
        if self._readers is not None:
            self._readers.forget(request_id)


def prepare_v1_steps(runner: Any, steering: Steering) -> None:
    """The V1 runner tells `steering` of each step before the target runs."""
    require("GPUModelRunner", dir(runner), "_model_forward", "query_start_loc", "positions", "input_batch", "requests")
    forward = runner._model_forward

    def prepared_forward(*args: Any, **kwargs: Any) -> Any:
        if steering.rests():
            return forward(*args, **kwargs)
        batch = runner.input_batch
        count = batch.num_reqs
        states = [runner.requests[request_id] for request_id in batch.req_ids]
        steering.prepare(
            batch.req_ids,
            [state.sampling_params for state in states],
            [state.num_prompt_tokens for state in states],
            np.diff(runner.query_start_loc.np[: count + 1]),
            runner.positions,
        )
        return forward(*args, **kwargs)

    runner._model_forward = prepared_forward
    when_removed(runner, steering.forget)


def prepare_v2_steps(runner: Any, steering: Steering) -> None:
    """The same for the V2 runner, by the hooks that it offers to models' states, which run before graph replays too."""
    state = runner.model_state
    require("ModelState", dir(state), "add_request", "remove_request", "prepare_inputs")
    add, remove, prepare = state.add_request, state.remove_request, state.prepare_inputs
    known: dict[str, tuple[object, int]] = {}  # sampling parameters and prompt length

    def add_request(index: int, new: Any) -> None:
        known[new.req_id] = new.sampling_params, len(new.prompt_token_ids or ())
        add(index, new)

    def remove_request(request_id: str) -> None:
        remove(request_id)
        known.pop(request_id, None)
        steering.forget(request_id)

    def prepare_inputs(batch: Any, states: Any) -> Any:
        if steering.rests():
            return prepare(batch, states)
        # A batch of vLLM's own, as for warming up, has no requests that are known.
        found = [known.get(request_id, (None, 0)) for request_id in batch.req_ids]
        params, lengths = [one for one, _ in found], [length for _, length in found]
        counts = np.diff(batch.query_start_loc_np[: batch.num_reqs + 1])
        steering.prepare(batch.req_ids, params, lengths, counts, batch.positions)
        return prepare(batch, states)

    state.add_request, state.remove_request, state.prepare_inputs = add_request, remove_request, prepare_inputs
