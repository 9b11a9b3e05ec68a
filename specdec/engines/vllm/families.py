"""Target family -> vLLM's decoder layer of that kind, as `make(vllm_config, target_hf_config, prefix) -> module`."""

from collections.abc import Callable
from typing import Any

from torch import nn
from vllm.model_executor.models.utils import get_draft_quant_config

from specdec.registry import Registry

DECODER_LAYERS: Registry[Callable[[Any, Any, str], nn.Module]] = Registry("target family")


def _llama() -> Callable[[Any, Any, str], nn.Module]:
    from vllm.model_executor.models.llama import LlamaDecoderLayer

    class HeadLayer(LlamaDecoderLayer):
        def get_quant_config(self, vllm_config: Any) -> Any:
            return get_draft_quant_config(vllm_config)  # the head's own, not the target's

    return lambda vllm_config, config, prefix: HeadLayer(vllm_config, prefix=prefix, config=config)


def _qwen2() -> Callable[[Any, Any, str], nn.Module]:
    from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer

    return lambda vllm_config, config, prefix: Qwen2DecoderLayer(
        config, vllm_config.cache_config, get_draft_quant_config(vllm_config), prefix
    )


def _qwen3() -> Callable[[Any, Any, str], nn.Module]:
    from vllm.model_executor.models.qwen3 import Qwen3DecoderLayer

    return lambda vllm_config, config, prefix: Qwen3DecoderLayer(
        config, vllm_config.cache_config, get_draft_quant_config(vllm_config), prefix
    )


DECODER_LAYERS.register("llama", _llama)
DECODER_LAYERS.register("qwen2", _qwen2)
DECODER_LAYERS.register("qwen3", _qwen3)
