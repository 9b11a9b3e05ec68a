"""In the engine core: how many drafts each step asks the head for, and how many of them each request gets verified.

vLLM asks a table by batch size (`num_speculative_tokens_per_batch_size`) in every step; ours stands in its place. Fewer
passes of the head are the batch's matter; fewer rows to verify are each request's own, whose drafts are cut here.
"""

import time
from collections.abc import Iterable
from typing import Any, Protocol

from specdec.drafting import bucket_of
from specdec.drafting.adaptive import Planner, Step
from specdec.engines.vllm.api.route import STEP
from specdec.errors import SpecdecError
from specdec.sampling import GREEDY_BELOW

# Tokens of prompts beside each row that is decided on, up to which a step says what steps take. Where answers are short
# and requests many, few steps have none.
PROMPTS = 1.0
GREEDY = -1  # as the kind of a request; others have their bucket of sampling parameters


class Drafts(Protocol):
    """What the scheduler tells of its requests and steps, and asks."""

    def __getitem__(self, requests: int) -> int:
        """Passes of the head in the step that is being scheduled."""

    def admit(self, request: Any) -> None: ...

    def begin(self, running: Iterable[Any]) -> None:
        """Before a step is scheduled."""

    def scheduled(self, output: Any) -> None:
        """output: the SchedulerOutput."""

    def finished(self, output: Any, found: Any, goes_on: bool) -> None:
        """found: the step's ModelRunnerOutput; goes_on: whether the next step follows at once."""

    def count(self, request_id: str) -> int:
        """Drafts that the request is to have of those of the step that was begun last."""


class PinnedDrafts:
    """The same number for all, at all times."""

    def __init__(self, passes: int) -> None:
        self._passes = passes

    def __getitem__(self, requests: int) -> int:
        return self._passes

    def admit(self, request: Any) -> None: ...

    def begin(self, running: Iterable[Any]) -> None: ...

    def scheduled(self, output: Any) -> None: ...

    def finished(self, output: Any, found: Any, goes_on: bool) -> None: ...

    def count(self, request_id: str) -> int:
        return self._passes


class AdaptiveDrafts:
    """Follows the Planner, but for sampled requests with a seed: as long as there is one, the head makes all passes."""

    def __init__(self, most: int) -> None:
        self._most, self._passes = most, most
        self._planner = Planner(most)
        self._seeded: set[str] = set()
        self._begun: dict[int, float] = {}  # by id of the SchedulerOutput of a step in flight
        self._began = 0.0
        self._over: tuple[Step, float | None] | None = None  # the last step, and when it began; None: a rest follows

    def __getitem__(self, requests: int) -> int:
        return self._passes

    def admit(self, request: Any) -> None:
        params = request.sampling_params
        if params is None:
            return
        greedy = params.temperature < GREEDY_BELOW
        if params.seed is not None and not greedy:
            self._seeded.add(request.request_id)
        kind = bucket_of(params.temperature, max(params.top_k, 0), params.top_p, params.min_p)
        self._planner.admit(request.request_id, GREEDY if kind is None else kind)

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._seeded.discard(request_id)
        self._planner.forget(request_id)

    def begin(self, running: Iterable[Any]) -> None:
        self._began = time.perf_counter()
        self._learn(self._began)
        self._planner.plan([request.request_id for request in running if request.request_id not in self._seeded])
        self._passes = self._most if self._seeded else self._planner.passes

    def scheduled(self, output: Any) -> None:
        for request_id in output.finished_req_ids:
            self.forget(request_id)
        if output.num_scheduled_tokens:
            self._begun[id(output)] = self._began

    def finished(self, output: Any, found: Any, goes_on: bool) -> None:
        began = self._begun.pop(id(output), None)
        carried = getattr(found, STEP, None)
        if began is None or carried is None:
            return
        requests = len(output.num_scheduled_tokens)
        rows = requests + sum(map(len, output.scheduled_spec_decode_tokens.values()))
        tokens = output.total_num_scheduled_tokens
        step = Step(
            rows=tokens, passes=output.num_spec_tokens_to_schedule, requests=requests, **carried,
            plain=tokens - rows <= PROMPTS * rows,
        )  # fmt: skip
        self._learn(None)
        if self._begun:  # steps overlap: what the host does is hidden behind the device's work
            self._planner.learn(step, sum(step.phases.values()))
        else:
            self._over = step, began if goes_on else None

    def _learn(self, now: float | None) -> None:
        """Of the last step, which ends where the next one begins."""
        if self._over is not None:
            (step, began), self._over = self._over, None
            self._planner.learn(step, now - began if now is not None and began is not None else None)

    def count(self, request_id: str) -> int:
        return self._most if request_id in self._seeded else min(self._planner.count(request_id), self._passes)


def drafts_for(count: str | int, most: int) -> Drafts | None:
    """What the setting drafts.count asks for; most: num_speculative_tokens. None: always all of them."""
    if count == "adaptive":
        return AdaptiveDrafts(most)
    if isinstance(count, int):
        if count > most:
            raise SpecdecError(
                f"drafts.count {count} is more than num_speculative_tokens {most}, of which it chooses: make it "
                f"{most} at most"
            )
        return PinnedDrafts(count)
    return None
