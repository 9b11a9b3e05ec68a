"""The vLLM plugin. Named on the engine's command line as `--worker-cls specdec.engines.vllm.Worker`.

Importing this package imports no vLLM: the entry point (`plugin.py`) runs in every vLLM process, and the worker class
is only built where vLLM asks for it by name.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Worker":
        from specdec.engines.vllm.worker import Worker

        return Worker
    if name == "Scheduler":
        from specdec.engines.vllm.scheduler import Scheduler

        return Scheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
