"""vLLM's V2 model runner on a machine without a GPU: its Triton kernels in Triton's interpreter, on CPU tensors.

For a process of its own: it changes vLLM for good, and must come before anything else of vLLM is imported.
"""

import os

from specdec.conformance.implementations.interpreted import allow_any_mask

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
    allow_any_mask()


def schedule_asynchronously() -> None:
    """As on a GPU: the engine schedules a step before it knows what the last one gave. vLLM switches it off on CPUs."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: type, vllm_config: object) -> None:
        original(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
