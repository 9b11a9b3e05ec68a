"""Where vLLM has no extension point: every change to its own classes, each with its reason.

They are made in every process in which the plugin is loaded, and change nothing unless our worker was chosen. One that
no longer fits the installed vLLM fails the start of such an engine, by name.
"""

import copy
from collections.abc import Collection
from typing import Any

from specdec.config import parse_settings
from specdec.engines.command import WORKER
from specdec.errors import SpecdecError

# Attribute of a speculative config whose engine runs our worker.
OURS = "specdec_verifies"
SCHEDULER = "specdec.engines.vllm.Scheduler"


def apply() -> None:
    """Called once per process by the plugin's entry point."""
    _engines_with_our_worker()
    _min_p_and_logit_bias_are_served()
    _programs_are_checked_at_admission()
    _prefix_cache_tells_programs_apart()


def _engines_with_our_worker() -> None:
    """Reasons: executor.py, scheduler.py. Both could also be named on the command line, but then every user
    would have to.

    This is where a process first sees the whole configuration, so the speculative config is marked here too.
    """
    from vllm.v1.executor.abstract import Executor

    original = Executor.get_class

    def get_class(vllm_config: Any) -> type:
        chosen = original(vllm_config)
        if vllm_config.parallel_config.worker_cls != WORKER:
            return chosen
        _choose_scheduler(vllm_config)
        if parse_settings(vllm_config.additional_config).metrics.enabled:
            page_beside_metrics()
        if vllm_config.speculative_config is not None:
            setattr(vllm_config.speculative_config, OURS, True)
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        if chosen is not MultiprocExecutor:
            return chosen
        require("MultiprocExecutor", dir(MultiprocExecutor), "sample_tokens", "take_draft_token_ids")
        from specdec.engines.vllm.executor import CarryingExecutor

        return CarryingExecutor

    Executor.get_class = staticmethod(get_class)


def _choose_scheduler(vllm_config: Any) -> None:
    scheduler, settings = vllm_config.scheduler_config, parse_settings(vllm_config.additional_config)
    if scheduler.scheduler_cls in (None, SCHEDULER):
        scheduler.scheduler_cls = SCHEDULER
    elif settings.steering.enabled or settings.drafts.count != "fixed":
        raise SpecdecError(
            f"--scheduler-cls {scheduler.scheduler_cls} knows no steering programs and no drafts.count: leave it out"
        )


def _programs_are_checked_at_admission() -> None:
    """Reason: api/admission.py. vLLM hands `extra_args` on as they came, to whoever may understand them."""
    from specdec.engines.vllm.api.admission import patch_input_processor

    patch_input_processor()


def _prefix_cache_tells_programs_apart() -> None:
    """Reason: steering/cache_keys.py. vLLM's block hashes leave `extra_args` out."""
    from specdec.engines.vllm.steering.cache_keys import patch_block_hashes

    patch_block_hashes()


def answers_reach_clients() -> None:
    """Reasons: api/outputs.py, api/openai.py. vLLM's completions have no place for what a plugin adds, nor have its
    choices; kv_transfer_params, which answers come with, reach a whole completion's first result only.

    Called by api/admission.py for an engine with our worker, so that no other process loads the API's modules.
    """
    from specdec.engines.vllm.api.openai import patch_api_server
    from specdec.engines.vllm.api.outputs import patch_outputs

    patch_outputs()
    patch_api_server()


def page_beside_metrics() -> None:
    """Reason: api/page.py. vLLM loads plugins that add endpoints only where VLLM_PLUGINS names them, and then no plugin
    that it does not name: every user would have to list all of theirs.
    """
    from specdec.engines.vllm.api.page import patch_metrics_router

    patch_metrics_router()


def _min_p_and_logit_bias_are_served() -> None:
    """Reason: vLLM refuses both under speculation, because its own verification would drop them. Ours applies them."""
    from vllm.sampling_params import SamplingParams

    original = getattr(SamplingParams, "_validate_spec_decode", None)

    def validate(self: Any, speculative_config: Any) -> None:
        if original is not None:
            if getattr(speculative_config, OURS, False):
                self = copy.copy(self)
                self.min_p, self.logit_bias = 0.0, None  # whatever else it refuses, it still does
            original(self, speculative_config)

    if original is not None:  # a version without the check refuses nothing
        SamplingParams._validate_spec_decode = validate  # type: ignore[method-assign]


def require(owner: str, present: Collection[str], *names: str) -> None:
    """SpecdecError where a class of the installed vLLM, which has the names `present`, lacks one that we build on."""
    for name in names:
        if name not in present:
            raise SpecdecError(f"this vLLM has no {owner}.{name}: use a version that specdec supports")
