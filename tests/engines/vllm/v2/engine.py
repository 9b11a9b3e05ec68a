"""Starting real engines with vLLM's V2 model runner, each in a process of its own."""

from typing import Any

from tests.engines.vllm.engine import BASE, Outcome, ask_child
from tests.engines.vllm.forks import Forks
from tests.engines.vllm.v2.interpreter import ENVIRONMENT

FORKS = Forks(["tests.engines.vllm.v2.interpreter:enable_kernels", "vllm", "vllm.v1.worker.cpu_worker"], ENVIRONMENT)


def run_v2(
    engine: dict[str, Any],
    jobs: list[dict[str, Any]],
    asynchronous: bool = True,
    aborts: int = 0,
    workspace: int | None = None,
) -> Outcome:
    """As run_child, in the V2 runner; see child.py for aborts and workspace."""
    how = {"asynchronous": asynchronous, "aborts": aborts, "workspace": workspace}
    call = {"engine": {**BASE, **engine}, "jobs": jobs, **how}
    return ask_child(call, "tests.engines.vllm.v2.child:main", FORKS)
