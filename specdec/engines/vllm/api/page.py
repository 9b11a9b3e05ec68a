"""In the API server: the live page (specdec/metrics/live) at /specdec, beside /metrics, where it gets its figures.

It holds none itself, so it is open where /metrics is, API key or not.
"""

from functools import cache
from typing import Any

from specdec.engines.vllm.patches import require
from specdec.metrics.live import POLICY, document

PATH = "/specdec"


@cache  # once per process
def patch_metrics_router() -> None:
    """Called by patches.py. vLLM's API server calls attach_router while it is built."""
    from vllm.entrypoints.serve.instrumentator import metrics

    require("entrypoints.serve.instrumentator.metrics", dir(metrics), "attach_router")
    attach = metrics.attach_router

    def attach_router(app: Any) -> None:
        attach(app)
        add_page(app)

    metrics.attach_router = attach_router


def add_page(app: Any) -> None:
    """app: FastAPI's."""
    from fastapi.responses import HTMLResponse

    text = document()  # a file that is missing stops the start

    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    app.add_api_route(PATH, page, methods=["GET"], include_in_schema=False)
