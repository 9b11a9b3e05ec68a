"""vLLM's V2 model runner on a machine without a GPU: its Triton kernels in Triton's interpreter, on CPU tensors.

For a process of its own: it changes vLLM for good, and must come before anything else of vLLM is imported.
"""

import os
from typing import Any

ENVIRONMENT = {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def enable_kernels() -> None:
    """vLLM looks for an active GPU driver, and without one puts placeholders in the place of its kernels."""
    os.environ.update(ENVIRONMENT)
    from vllm.triton_utils import importing

    importing.HAS_TRITON = True
    import triton
    import triton.language
    from vllm import triton_utils

    triton_utils.HAS_TRITON = True
    triton_utils.triton = triton
    triton_utils.tl = triton.language
    _take_any_integer_for_a_mask()


def _take_any_integer_for_a_mask() -> None:
    """The interpreter computes some masks (`a & b & c`) as 8-bit integers, which its memory accesses then refuse."""
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    load, store = Builder.create_masked_load, Builder.create_masked_store

    def create_masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return load(self, ptrs, mask, *rest)

    def create_masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return store(self, ptrs, value, mask, *rest)

    Builder.create_masked_load, Builder.create_masked_store = create_masked_load, create_masked_store


def schedule_asynchronously() -> None:
    """As on a GPU: the engine schedules a step before it knows what the last one gave. vLLM switches it off on CPUs."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: type, vllm_config: object) -> None:
        original(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
