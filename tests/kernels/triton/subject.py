"""The triton backend as one that takes CPU tensors, whatever it runs on."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, triton

T = TypeVar("T", Draft, SamplingBatch, VerifyOutput)


@dataclass
class Subject:
    device: torch.device

    def available(self) -> bool:
        return True

    def accepts(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def verify_token(self, target: Tensor, draft: Draft, sampling: SamplingBatch, *more: Any) -> VerifyOutput:
        return _moved(triton.verify_token(*self._there(target, draft, sampling), *more), torch.device("cpu"))

    def verify_block(self, target: Tensor, draft: Draft, sampling: SamplingBatch, *more: Any) -> VerifyOutput:
        return _moved(triton.verify_block(*self._there(target, draft, sampling), *more), torch.device("cpu"))

    def sample_draft(self, logits: Tensor, sampling: SamplingBatch, *more: Any) -> tuple[Tensor, Tensor]:
        tokens, stats = triton.sample_draft(logits.to(self.device), _moved(sampling, self.device), *more)
        return tokens.cpu(), stats.cpu()

    def _there(self, target: Tensor, draft: Draft, sampling: SamplingBatch) -> tuple[Tensor, Draft, SamplingBatch]:
        return target.to(self.device), _moved(draft, self.device), _moved(sampling, self.device)


def _moved(value: T, device: torch.device) -> T:
    tensors = {f.name: t for f in fields(value) if isinstance(t := getattr(value, f.name), Tensor)}
    return replace(value, **{name: tensor.to(device) for name, tensor in tensors.items()})
