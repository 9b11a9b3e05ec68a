"""In the API process: what stands under "specdec" is checked when its request comes in; a client sees HTTP 400.

Behind this point a request carries its canonical text in `sampling_params.extra_args["specdec"]`, so that engine core
and worker need no settings to understand it.
"""

import inspect
from typing import Any

from specdec.config import parse_settings
from specdec.engines.command import WORKER
from specdec.engines.vllm.api.carried import KEY
from specdec.engines.vllm.patches import answers_reach_clients
from specdec.engines.vllm.steering.sources import catalog_of
from specdec.errors import SpecdecError
from specdec.request import WHERE_TO_STEER, Offer, Request


def patch_input_processor() -> None:
    """Called by patches.py, in every process."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.input_processor import InputProcessor

    build, process = InputProcessor.__init__, InputProcessor.process_inputs
    signature = inspect.signature(process)

    def build_with_offer(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        build(self, vllm_config, *args, **kwargs)
        self.specdec_offer = offer_of(vllm_config)
        if self.specdec_offer is not None:
            answers_reach_clients()

    def process_admitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        try:
            bound.arguments["params"] = admitted(bound.arguments["params"], self.specdec_offer)
        except SpecdecError as error:
            raise VLLMValidationError(str(error)) from None  # what vLLM answers with HTTP 400
        return process(*bound.args, **bound.kwargs)

    InputProcessor.__init__ = build_with_offer  # type: ignore[method-assign]
    InputProcessor.process_inputs = process_admitted  # type: ignore[method-assign]


def offer_of(vllm_config: Any) -> Offer | None:
    """What requests may ask of this server; None: it does not run our worker."""
    if vllm_config.parallel_config.worker_cls != WORKER:
        return None
    settings = parse_settings(vllm_config.additional_config)
    counts = settings.metrics.enabled and vllm_config.speculative_config is not None
    catalog = None
    if settings.steering.enabled:
        catalog = catalog_of(settings.steering, vllm_config.model_config.hf_text_config)
    return Offer(catalog, counts, settings.metrics.max_tenants > 0)


def admissible(raw: Any, offer: Offer | None) -> Request:
    """What a request asks of a server. SpecdecError: see Offer.request; the server offers nothing."""
    if offer is None:
        raise SpecdecError(WHERE_TO_STEER)
    return offer.request(raw)


def admitted(params: Any, offer: Offer | None) -> Any:
    """The params, or a copy with the request in its final form. SpecdecError: see `admissible`."""
    extra = getattr(params, "extra_args", None) or {}
    if KEY not in extra:
        return params
    request = admissible(extra[KEY], offer)
    params = params.clone()
    params.extra_args = {**extra, KEY: request.canonical()}
    if request.read is not None and request.read.prompt:
        # A position that is found in the cache is not computed, so there would be nothing to read.
        params.skip_reading_prefix_cache = True
    return params
