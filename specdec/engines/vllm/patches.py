"""Where vLLM has no extension point: every change to its own classes, each with its reason.

They are made in every process in which the plugin is loaded, and change nothing unless our worker was chosen. One that
no longer fits the installed vLLM fails the start of such an engine, by name.
"""

from typing import Any

from specdec.engines.command import WORKER
from specdec.errors import SpecdecError


def apply() -> None:
    """Called once per process by the plugin's entry point."""
    _draft_ids_come_with_the_output()


def _draft_ids_come_with_the_output() -> None:
    """Reason: executor.py. An executor could also be named on the command line, but then every user would have to."""
    from vllm.v1.executor.abstract import Executor

    original = Executor.get_class

    def get_class(vllm_config: Any) -> type:
        chosen = original(vllm_config)
        if vllm_config.parallel_config.worker_cls != WORKER:
            return chosen
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        if chosen is not MultiprocExecutor:
            return chosen
        for name in ("sample_tokens", "take_draft_token_ids"):
            if not hasattr(MultiprocExecutor, name):
                raise SpecdecError(f"this vLLM has no MultiprocExecutor.{name}: use a version that specdec supports")
        from specdec.engines.vllm.executor import CarryingExecutor

        return CarryingExecutor

    Executor.get_class = staticmethod(get_class)
