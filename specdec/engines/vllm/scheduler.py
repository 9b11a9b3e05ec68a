"""The scheduler that goes with our worker.

It keeps the number of different steering programs at once within what the worker has places for: a request whose
program finds none waits, and those behind it that need none go on. And it hands on what belongs to requests' answers:
the worker reads every row that a token may have been sampled from, and here it is known which tokens came of them.
They travel to the API process in the one part of a request's output that takes what it is given (api/route.py).
And it settles how many drafts are made and verified (adaptive.py).

Chosen by patches.py.
"""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler as SyncScheduler
from vllm.v1.request import RequestStatus

from specdec.config import parse_settings
from specdec.engines.vllm.adaptive import drafts_for
from specdec.engines.vllm.api.carried import program_of
from specdec.engines.vllm.api.route import FIGURES, READINGS, attach_figures, attach_readings
from specdec.errors import SpecdecError


class Scheduler(SyncScheduler):
    """Before vLLM's own `schedule`, requests without a place are taken out of its waiting queue, then put back.

    Where scheduling is asynchronous, an AsynchronousScheduler is made: one name serves both.
    """

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(AsynchronousScheduler if vllm_config.scheduler_config.async_scheduling else cls)

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)
        settings = parse_settings(vllm_config.additional_config)
        self._steers, self._places = settings.steering.enabled, settings.steering.max_programs
        self._drafts = drafts_for(settings.drafts.count, self.num_spec_tokens) if self.num_spec_tokens else None
        if self._drafts is not None:
            if self.dynamic_sd_lookup is not None:
                raise SpecdecError(
                    "num_speculative_tokens_per_batch_size and drafts.count both choose how many drafts: leave one out"
                )
            self.dynamic_sd_lookup = self._drafts  # type: ignore[assignment]

    def add_request(self, request: Any) -> None:
        super().add_request(request)
        if self._drafts is not None:
            self._drafts.admit(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        if self._drafts is None:
            return self._schedule(*args, **kwargs)
        self._drafts.begin(self.running)
        output = self._schedule(*args, **kwargs)
        self._drafts.scheduled(output)
        return output

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        if self._drafts is not None:
            for request_id, ids in zip(draft_token_ids.req_ids, draft_token_ids.draft_token_ids, strict=True):
                del ids[self._drafts.count(request_id) :]
        super().update_draft_token_ids(draft_token_ids)

    def _schedule(self, *args: Any, **kwargs: Any) -> Any:
        waiting = self._without_place()
        if not waiting:
            return super().schedule(*args, **kwargs)
        self.waiting.remove_requests(waiting)
        try:
            return super().schedule(*args, **kwargs)
        finally:
            for request in reversed(waiting):
                self.waiting.prepend_request(request)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, Any]:
        found = super().update_from_output(scheduler_output, model_runner_output)
        if self._drafts is not None:
            self._drafts.finished(scheduler_output, model_runner_output, goes_on=bool(self.running))
        for carried, attach in ((READINGS, attach_readings), (FIGURES, attach_figures)):
            entries = getattr(model_runner_output, carried, None) or {}
            for outputs in found.values() if entries else ():
                for output in outputs.outputs:
                    if output.new_token_ids and output.request_id in entries:
                        attach(output, entries[output.request_id])
        return found

    def _without_place(self) -> list[Any]:
        """Those of the waiting requests whose program finds no place."""
        if not self.waiting or not self._steers:
            return []
        programs = [(request, program_of(request.sampling_params)) for request in [*self.running, *self.waiting]]
        asked = [(request, program.key) for request, program in programs if program is not None]
        # A worker keeps the programs of requests that were preempted.
        started = RequestStatus.RUNNING, RequestStatus.PREEMPTED
        held = {key for request, key in asked if request.status in started}
        without = []
        for request, key in asked:
            if request.status not in started and key not in held:
                if len(held) < self._places:
                    held.add(key)
                else:
                    without.append(request)
        return without


class AsynchronousScheduler(Scheduler, AsyncScheduler):
    """For asynchronous scheduling, where drafts have placeholders before they are drawn."""

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        super()._update_after_schedule(scheduler_output)
        if self._drafts is not None:
            for request_id in scheduler_output.num_scheduled_tokens:
                request = self.requests[request_id]
                request.spec_token_ids = request.spec_token_ids[: self._drafts.count(request_id)]
