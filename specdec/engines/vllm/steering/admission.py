"""In the API process: a program, or a reading, is checked when its request comes in, which a client sees as HTTP 400.

Behind this point a request carries its canonical text in `sampling_params.extra_args["specdec"]`, so that engine core
and worker need no settings to understand it.
"""

import inspect
from typing import Any

from specdec.config import parse_settings
from specdec.engines.command import WORKER
from specdec.engines.vllm.patches import readings_reach_answers
from specdec.engines.vllm.steering.carried import KEY
from specdec.engines.vllm.steering.sources import load_sources
from specdec.errors import SpecdecError
from specdec.steering.program import Catalog


def patch_input_processor() -> None:
    """Called by patches.py, in every process."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.input_processor import InputProcessor

    build, process = InputProcessor.__init__, InputProcessor.process_inputs
    signature = inspect.signature(process)

    def build_with_catalog(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        build(self, vllm_config, *args, **kwargs)
        self.specdec_catalog = catalog_of(vllm_config)
        if self.specdec_catalog is not None:
            readings_reach_answers()

    def process_admitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        try:
            bound.arguments["params"] = admitted(bound.arguments["params"], self.specdec_catalog)
        except SpecdecError as error:
            raise VLLMValidationError(str(error)) from None  # what vLLM answers with HTTP 400
        return process(*bound.args, **bound.kwargs)

    InputProcessor.__init__ = build_with_catalog  # type: ignore[method-assign]
    InputProcessor.process_inputs = process_admitted  # type: ignore[method-assign]


def catalog_of(vllm_config: Any) -> Catalog | None:
    """What requests may ask of this server; None: it does not steer."""
    if vllm_config.parallel_config.worker_cls != WORKER:
        return None
    settings = parse_settings(vllm_config.additional_config).steering
    return load_sources(settings, vllm_config.model_config.hf_text_config).catalog if settings.enabled else None


def admitted(params: Any, catalog: Catalog | None) -> Any:
    """The params, or a copy with the request in its final form. SpecdecError: see Catalog.request."""
    extra = getattr(params, "extra_args", None) or {}
    if KEY not in extra:
        return params
    if catalog is None:
        raise SpecdecError(
            'this server does not steer, so "specdec" cannot be served: start it with '
            '--worker-cls specdec.engines.vllm.Worker and {"specdec": {"steering": {...}}} in --additional-config'
        )
    request = catalog.request(extra[KEY])
    params = params.clone()
    params.extra_args = {**extra, KEY: request.canonical()}
    if request.read is not None and request.read.prompt:
        # A position that is found in the cache is not computed, so there would be nothing to read.
        params.skip_reading_prefix_cache = True
    return params
