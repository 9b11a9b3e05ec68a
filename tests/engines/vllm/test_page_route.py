"""/specdec is a route of the API server where our worker runs and counts, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.vllm.engine import BASE, FORKS, ours

HERE = "tests.engines.vllm.test_page_route:routes"


def routes(call: dict[str, Any]) -> None:
    """In a process of its own: the paths that vLLM adds with its metrics, once an engine is configured."""
    from fastapi import FastAPI
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.executor.abstract import Executor

    Executor.get_class(EngineArgs(**call["engine"]).create_engine_config())
    from vllm.entrypoints.serve.instrumentator.metrics import attach_router

    app = FastAPI()
    attach_router(app)
    Path(call["output"]).write_text(json.dumps([getattr(route, "path", "") for route in app.routes]))


@pytest.mark.parametrize(
    ("engine", "there"),
    [(ours(), True), (ours(settings={"metrics": {"enabled": False}}), False), ({}, False)],
    ids=["our worker", "our worker without metrics", "not ours"],
)
def test_where_the_page_is(tmp_path: Path, engine: dict[str, Any], there: bool) -> None:
    done = FORKS.run(HERE, {"engine": {**BASE, **engine}, "output": str(tmp_path / "paths")})
    assert done.returncode == 0, done.stderr[-3000:]
    paths = json.loads((tmp_path / "paths").read_text())
    assert "/metrics" in paths and ("/specdec" in paths) == there
