"""Putting drafting and verification into a V2 runner, once everything that they rely on has been found there."""

from typing import Any

from vllm.config.compilation import CUDAGraphMode
from vllm.logger import init_logger
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler

from specdec.config import Settings
from specdec.drafting import DraftScales
from specdec.engines.vllm.clock import clock_for, timed
from specdec.engines.vllm.figures import Reporter
from specdec.engines.vllm.patches import require
from specdec.engines.vllm.shared import admissions_of, draft_scales_of, kept_requests, make_counters
from specdec.engines.vllm.v2.drafter import SEQUENTIAL, Drafter
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.engines.vllm.v2.verifier import Verifier
from specdec.errors import SpecdecError
from specdec.verify.backends import BACKENDS, choose

logger = init_logger(__name__)


class V2Adapter:
    """Made when the runner exists, which has its speculator by then; `install` once its model is loaded.

    count: whether this worker's figures are reported (one of the tensor-parallel ranks).
    """

    def __init__(self, runner: Any, settings: Settings, count: bool):
        _check_combination(runner)
        _check_runner(runner)
        self._runner, self._settings, self._count = runner, settings, count
        self._slots = SlotTable(admissions_of(runner), runner.max_num_reqs, runner.device)
        self._scales: DraftScales | None = None
        self._rows = self._install_drafter()

    def _install_drafter(self) -> DraftRows | None:
        runner, speculator = self._runner, self._runner.speculator
        model, n = runner.model_config, runner.num_speculative_steps
        if runner.speculative_config.draft_sample_method != "probabilistic":
            return None
        if type(speculator).__name__ not in SEQUENTIAL:
            logger.warning("specdec: the drafts of a %s are verified as one-hot", type(speculator).__name__)
            return None
        require(type(speculator).__name__, dir(speculator), "sample_draft", "init_cudagraph_manager", "draft_logits")
        dtype = getattr(model, "head_dtype", None) or model.dtype  # of the logits
        bound = kept_requests(self._settings, n, runner.vocab_size, dtype)
        speculator.draft_logits = None  # vLLM's own: let go first, or its memory would be taken twice
        rows = DraftRows(runner.max_num_reqs, n, runner.vocab_size, dtype, runner.device, bound)
        backend = self._settings.verify.backend
        self._scales = draft_scales_of(runner, self._settings)
        speculator.sample_draft = Drafter(speculator, self._slots, rows, backend, self._scales).sample
        speculator.draft_logits = rows.logits  # that there is one means "probabilistic"
        if runner.device.type != "cpu" and choose(backend, runner.device) is BACKENDS.get("reference"):
            logger.warning("specdec: the reference backend waits for the device, so drafting uses no CUDA graphs")
            whole = speculator.init_cudagraph_manager
            speculator.init_cudagraph_manager = lambda mode: whole(CUDAGraphMode.NONE)
        return rows

    def install(self) -> Reporter:
        """Puts our verifier in place, and returns what reports its figures."""
        runner, settings = self._runner, self._settings
        if type(runner.sampler) is not Sampler or type(runner.rejection_sampler) is not RejectionSampler:
            raise SpecdecError(
                f"this model brings a sampler of its own ({type(runner.sampler).__name__}), whose place specdec would "
                "take: serve it without --worker-cls specdec.engines.vllm.Worker"
            )
        require(
            "Sampler", dir(runner.sampler), "sampling_states", "req_states", "logprob_token_ids_state", "compute_nans"
        )
        counters = make_counters(runner, settings.metrics) if settings.metrics.enabled and self._count else None
        adaptive = settings.drafts.count == "adaptive" and self._count
        clock = clock_for(runner.device, wanted=counters is not None or adaptive)
        verifier = Verifier(
            runner.sampler, self._slots, self._rows, settings.verify, self._count, self._scales, clock
        )  # fmt: skip
        runner.sampler = runner.rejection_sampler = verifier
        propose = runner.speculator.propose
        runner.speculator.propose = timed(clock, "draft", propose)
        reporter = Reporter(verifier.take_figures, counters, clock)
        reporter.carries = adaptive
        reporter.switches += [verifier.count, *([] if adaptive else [clock.switch])]
        reporter.count(settings.metrics.enabled)
        if self._rows is not None:
            nbytes = self._rows.nbytes
            reporter.gauges["draft_rows_bytes"] = lambda: nbytes
        return reporter


def _check_runner(runner: Any) -> None:
    """The parts of the runner that are used or replaced."""
    require(
        "GPUModelRunner", dir(runner), "speculator", "sampler", "rejection_sampler", "req_states", "max_num_reqs",
        "num_speculative_steps", "vocab_size", "device",
    )  # fmt: skip
    require("Sampler", dir(Sampler), "add_request", "apply_staged_writes", "apply_sampling_params")
    require(
        "InputBatch", InputBatch.__dataclass_fields__, "req_ids", "num_reqs", "idx_mapping", "idx_mapping_np",
        "expanded_idx_mapping", "expanded_local_pos", "num_draft_tokens_per_req", "seq_lens", "input_ids", "positions",
        "logits_indices", "cu_num_logits", "cu_num_logits_np", "seq_lens_cpu_upper_bound",
    )  # fmt: skip


def _check_combination(runner: Any) -> None:
    """Refuse what the V2 runner offers and this plugin would serve wrongly, or not as asked."""
    model, parallel = runner.model_config, runner.parallel_config
    refused = {
        "enable_adaptive_verification in --speculative-config": getattr(
            runner.speculative_config, "enable_adaptive_verification", False
        ),
        "--watermark-config": getattr(runner.vllm_config, "watermark_config", None) is not None,
        "--enable-batch-sharded-sampling": getattr(parallel, "enable_batch_sharded_sampling", False),
        "--enable-trace-replay": getattr(model, "enable_trace_replay", False),
        "--return-sampling-mask": getattr(model, "return_sampling_mask", False),
    }
    for flag, asked in refused.items():
        if asked:
            raise SpecdecError(f"{flag} is not supported with specdec's verification: leave it out")
