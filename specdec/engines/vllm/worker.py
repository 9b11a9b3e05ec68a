"""`--worker-cls specdec.engines.vllm.Worker`: the platform's own worker, with the verify step and drafting replaced."""

from typing import TYPE_CHECKING, Any

from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor
from vllm.v1.spec_decode.eagle import EagleProposer

from specdec.config import Settings, parse_settings
from specdec.drafting import load_calibration
from specdec.engines.checks import HEAD_ARCHITECTURE, check_head
from specdec.engines.installed import require_vllm
from specdec.engines.vllm.api.route import READINGS
from specdec.engines.vllm.clock import clock_for, timed
from specdec.engines.vllm.drafts import DraftStore
from specdec.engines.vllm.executor import carry
from specdec.engines.vllm.figures import Reporter
from specdec.engines.vllm.proposer import MTPProposer
from specdec.engines.vllm.requests import RequestTable
from specdec.engines.vllm.shared import (
    admissions_of,
    draft_scales_of,
    kept_requests,
    make_counters,
    when_on_host,
    when_removed,
)
from specdec.engines.vllm.steering.install import Steering, prepare_v1_steps, prepare_v2_steps, sources_of
from specdec.engines.vllm.steering.sources import Sources
from specdec.engines.vllm.verifier import Verifier
from specdec.errors import SpecdecError

if TYPE_CHECKING:
    from specdec.engines.vllm.v2.install import V2Adapter

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker  # type: ignore[assignment]

logger = init_logger(__name__)


class Worker(PlatformWorker):
    """Settings are checked before anything is loaded; see specdec/config.py for them."""

    _sources: Sources | None = None  # what steering needs, until the model is loaded
    _steering: Steering | None = None
    _v2: "V2Adapter | None" = None  # where vLLM's V2 model runner is in use
    _reporter: Reporter | None = None
    _proposer: MTPProposer | None = None
    _drafts_asked_for = 0  # of each request, in the last step

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any):
        require_vllm()
        _check_combination(vllm_config)
        self.specdec_settings = parse_settings(vllm_config.additional_config)
        _check_head(vllm_config)
        self._sources = sources_of(vllm_config, self.specdec_settings)
        super().__init__(vllm_config, *args, **kwargs)

    def init_device(self) -> None:
        super().init_device()
        runner = self.model_runner
        if runner.speculative_config is None:
            logger.warning("specdec: no --speculative-config was given, so this server runs without speculation")
        elif self.use_v2_model_runner:
            from specdec.engines.vllm.v2.install import V2Adapter

            self._v2 = V2Adapter(runner, self.specdec_settings, count=counts())
        else:
            self._reporter = install(runner, self.specdec_settings, count=counts())
            if isinstance(runner.drafter, MTPProposer):
                self._proposer = runner.drafter

    def load_model(self, **how: Any) -> None:
        super().load_model(**how)
        if self._proposer is not None:
            runner = self.model_runner
            propose = self._proposer.before(runner.propose_draft_token_ids)
            runner.propose_draft_token_ids = propose  # type: ignore[method-assign]
        if self._v2 is not None:
            self._reporter = self._v2.install()
        if self._sources is not None:
            runner = self.model_runner
            steering = Steering(
                self.vllm_config, self.specdec_settings, self._sources, runner.get_model(), runner.device, counts()
            )
            (prepare_v2_steps if self.use_v2_model_runner else prepare_v1_steps)(runner, steering)
            self._sources, self._steering = None, steering
        if self._reporter is not None:
            self._reporter.gauges["drafts_per_step"] = lambda: self._drafts_asked_for
            if self._steering is not None:
                self._reporter.gauges["steering_programs"] = self._steering.in_use

    def execute_model(self, scheduler_output: Any) -> Any:
        if self._steering is not None:
            self._steering.begin(scheduler_output)
        if self._proposer is not None:
            self._proposer.begin(scheduler_output)
        if self._reporter is not None:
            self._reporter.clock.begin("target")
            self._drafts_asked_for = getattr(scheduler_output, "num_spec_tokens_to_schedule", 0)
        return super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        # Before vLLM starts the copy of the step's output, which ours comes along with.
        found = None if self._steering is None else self._steering.readings()
        output = super().sample_tokens(grammar_output)
        if found is not None:
            when_on_host(output, lambda step: setattr(step, READINGS, found.entries()))
        if self._reporter is not None:
            self._reporter.report_with(output)
        # Not under asynchronous scheduling, whose ids stay on the device.
        if self._v2 is None and isinstance(output, ModelRunnerOutput):
            carry(output, self.model_runner.take_draft_token_ids())
        return output

    def specdec_count(self, on: bool) -> None:
        """Counts for /metrics from now on, or not, as `metrics.enabled` in the settings says at the start.

        `llm.collective_rpc("specdec_count", args=(False,))`: what counting costs can be measured in one engine.
        """
        if self._reporter is not None:
            self._reporter.count(on)


def counts() -> bool:
    """Whether this process reports its figures: of the tensor-parallel ranks, which all compute the same, the first.

    So each engine of a data-parallel server reports its own requests. A worker's global rank would not do: under
    `external_launcher` it runs on from one engine to the next.
    """
    return get_tensor_model_parallel_rank() == 0


def install(runner: Any, settings: Settings, count: bool) -> Reporter:
    """Put our drafting, our keeping of draft rows and our verify step in the place of the V1 runner's.

    Returns what reports the figures of each step. count: whether there are to be any.
    """
    speculative, model = runner.speculative_config, runner.model_config
    table = RequestTable(admissions_of(runner), runner.device)
    store = scales = None
    if type(runner.drafter) is EagleProposer:
        if speculative.draft_sample_method == "probabilistic":
            bound = kept_requests(settings, runner.num_spec_tokens, model.get_vocab_size(), model.dtype)
            most = runner.max_num_reqs if bound is None else min(bound, runner.max_num_reqs)
            scales = draft_scales_of(runner, settings)
            store = DraftStore(speculative.num_speculative_tokens, most, runner.device)
        runner.drafter = MTPProposer(runner.vllm_config, runner.device, runner)
        never = settings.drafts.count == 0
        runner.drafter.attach(runner, table, store, scales, settings.verify.backend, never)
        when_removed(runner, runner.drafter.forget)
        # vLLM gives up the whole batch's drafts when one request comes near max_model_len. The drafting loop bounds
        # positions and slots by itself, and the scheduler cuts drafts at the limit, so the others may go on.
        runner._input_fits_in_drafter = lambda attention: attention is not None
    # vLLM leaves the biases out under speculation (min-p is part of our sampling parameters).
    processors = runner.input_batch.logitsprocs.non_argmax_invariant
    if any(isinstance(p, LogitBiasLogitsProcessor) for p in processors):
        raise SpecdecError("this vLLM applies logit biases under speculation itself: use a version specdec supports")
    processors.append(LogitBiasLogitsProcessor(runner.vllm_config, runner.device, False))
    counters = make_counters(runner, settings.metrics) if settings.metrics.enabled and count else None
    adaptive = settings.drafts.count == "adaptive" and count
    clock = clock_for(runner.device, wanted=counters is not None or adaptive)
    runner.drafter.propose = timed(clock, "draft", runner.drafter.propose)
    runner.specdec_verifier = Verifier(runner, table, store, settings.verify, count, scales, clock)
    runner._sample = runner.specdec_verifier.sample

    when_removed(runner, table.forget)
    when_removed(runner, runner.specdec_verifier.forget)
    if store is not None:
        when_removed(runner, store.release)
    reporter = Reporter(runner.specdec_verifier.take_figures, counters, clock)
    reporter.carries = adaptive
    reporter.switches += [runner.specdec_verifier.count, *([] if adaptive else [clock.switch])]
    reporter.count(settings.metrics.enabled)
    if store is not None:
        reporter.gauges["draft_rows_bytes"] = lambda: store.nbytes
    return reporter


def _check_combination(vllm_config: Any) -> None:
    """Refuse what this plugin would serve wrongly, or not as asked."""
    speculative = vllm_config.speculative_config
    if speculative is None:
        return
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        raise SpecdecError("pipeline_parallel_size > 1 is not supported with speculation: use tensor parallelism")
    if speculative.rejection_sample_method != "standard":
        raise SpecdecError(
            f"rejection_sample_method {speculative.rejection_sample_method!r} is vLLM's own and would be ignored: "
            'leave it out, and set {"specdec": {"verify": {"method": ...}}} in --additional-config'
        )
    if getattr(speculative, "parallel_drafting", False):
        raise SpecdecError("parallel_drafting is not supported: leave it out of --speculative-config")


def _check_head(vllm_config: Any) -> None:
    """A head of ours must fit its target; heads of other architectures are vLLM's own business."""
    draft = getattr(vllm_config.speculative_config, "draft_model_config", None)
    if draft is not None and HEAD_ARCHITECTURE in (draft.hf_config.architectures or []):
        check_head(draft.model, vllm_config.model_config.hf_text_config.to_dict())
        load_calibration(draft.model)
