"""Starting real engines with vLLM's V2 model runner, each in a process of its own."""

from pathlib import Path
from typing import Any

from tests.engines.vllm.engine import BASE, Outcome, ask_child

CHILD = Path(__file__).with_name("child.py")


def run_v2(
    engine: dict[str, Any],
    jobs: list[dict[str, Any]],
    asynchronous: bool = True,
    aborts: int = 0,
    workspace: int | None = None,
) -> Outcome:
    """As run_child, in the V2 runner; see child.py for aborts and workspace."""
    how = {"asynchronous": asynchronous, "aborts": aborts, "workspace": workspace}
    return ask_child({"engine": {**BASE, **engine}, "jobs": jobs, **how}, child=CHILD)
