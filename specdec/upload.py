"""Host values on their way to the device."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for it: a copy from pageable memory would wait."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
