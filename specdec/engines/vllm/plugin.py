"""The `vllm.general_plugins` entry point: called in every vLLM process, possibly more than once.

It makes names known (the head's config and architecture), lets /metrics look for our counters, and puts the patches in
place. Nothing in the engine changes until `--worker-cls specdec.engines.vllm.Worker` or a head of ours is named on its
command line.
"""

import atexit
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

_done = False


def register() -> None:
    global _done
    if _done:
        return
    _done = True
    _register_head()
    _register_metrics()
    _apply_patches()


def _register_head() -> None:
    from vllm import ModelRegistry

    from specdec.heads.config import register as register_config

    register_config()
    ModelRegistry.register_model("SpecdecMTPHead", "specdec.engines.vllm.model:SpecdecMTPHead")


def _register_metrics() -> None:
    from prometheus_client import REGISTRY

    from specdec.metrics.cells import DIRECTORY_VARIABLE
    from specdec.metrics.export import SpecdecCollector

    if DIRECTORY_VARIABLE not in os.environ:
        # The first process (the API server) names the folder; engine and workers inherit the name. No worker of ours,
        # no folder: it is only made by the first counter file.
        directory = Path(tempfile.gettempdir()) / f"specdec-metrics-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        os.environ[DIRECTORY_VARIABLE] = str(directory)
        atexit.register(_remove, directory, os.getpid())
    REGISTRY.register(SpecdecCollector())
    _several_servers_show_it_too(SpecdecCollector)


def _several_servers_show_it_too(collector: type) -> None:
    """Several API server processes answer /metrics from registries that are made for it, some at each scrape, and hold
    prometheus_client's collector of several processes' metrics. Wherever that one goes, ours goes along.
    """
    from prometheus_client.multiprocess import MultiProcessCollector

    build = MultiProcessCollector.__init__

    def build_both(self: Any, registry: Any, *args: Any, **kwargs: Any) -> None:
        build(self, registry, *args, **kwargs)
        if registry is not None:
            registry.register(collector())

    MultiProcessCollector.__init__ = build_both  # type: ignore[method-assign]


def _apply_patches() -> None:
    from specdec.engines.vllm import patches

    patches.apply()


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child runs the same exit handlers
        shutil.rmtree(directory, ignore_errors=True)
