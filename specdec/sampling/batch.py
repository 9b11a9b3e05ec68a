"""The sampling parameters of a batch of requests, as tensors."""

import os
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

# Temperatures under this mean argmax (vLLM's rule). Both are compared as float32: a temperature of 1e-5 is not greedy,
# though as a float32 it lies just below the float64 of that name.
GREEDY_BELOW = 1e-5

FIELD_DTYPES = {
    "temperature": torch.float32,
    "top_k": torch.int32,
    "top_p": torch.float32,
    "min_p": torch.float32,
    "seed": torch.int64,
    "position": torch.int64,
}


@dataclass(slots=True)
class SamplingBatch:
    """One entry per request, each tensor [B].

    temperature float32 (0 = greedy), top_k int32 (0 or at least the vocabulary = off), top_p float32 in (0, 1]
    (1 = off), min_p float32 in [0, 1] (0 = off), seed int64, position int64: the absolute index, in the sequence, of
    the first token that this step decides. Other dtypes are converted on construction; the exact ones are kept as they
    are, without a copy.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    position: Tensor

    def __post_init__(self) -> None:
        batch = self.temperature.shape
        if len(batch) != 1:
            raise ValueError(f"temperature has shape {list(batch)}: pass one value per request, shape [B].")
        for name, dtype in FIELD_DTYPES.items():
            tensor = getattr(self, name)
            if tensor.shape != batch:
                raise ValueError(f"{name} has shape {list(tensor.shape)}, temperature {list(batch)}: make them equal.")
            if tensor.dtype != dtype or not tensor.is_contiguous():
                setattr(self, name, tensor.to(dtype).contiguous())

    def __len__(self) -> int:
        return self.temperature.shape[0]

    @classmethod
    def uniform(
        cls,
        batch_size: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int | None = None,
        position: int = 0,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The same parameters for every request. Without a seed each request gets a fresh one of its own."""
        values = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "position": position}
        tensors = {
            name: torch.full((batch_size,), value, dtype=FIELD_DTYPES[name], device=device)
            for name, value in values.items()
        }
        if seed is None:
            # From the operating system: leaves torch's global generator alone, and never repeats.
            seeds = torch.from_numpy(np.frombuffer(bytearray(os.urandom(8 * batch_size)), dtype=np.int64))
        else:
            seeds = torch.full((batch_size,), _as_int64(seed), dtype=torch.int64)
        return cls(seed=seeds.to(device), **tensors)

    def rows(self, index: Tensor) -> Self:
        """The batch of requests `index` [R] (int64), in that order; a request may come up more than once."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


def _as_int64(seed: int) -> int:
    """A 64-bit seed, signed or unsigned, as the int64 with the same bits."""
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"Seed {seed} does not fit into 64 bits: use a smaller one.")
    return seed - 2**64 if seed >= 2**63 else seed
