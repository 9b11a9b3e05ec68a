"""A backend under test as one that takes CPU tensors, whatever it runs on."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput
from specdec.verify.backends import Backend
from specdec.verify.types import OnBadRow, VerifyInput
from tests.helpers.cases import Case

T = TypeVar("T", Draft, SamplingBatch, VerifyOutput)


class Subject:
    """backend: what is tested; device: where its tensors live."""

    def __init__(self, backend: Backend, device: torch.device):
        self._backend, self.device = backend, device

    def problem(self) -> None:
        return None

    def accepts(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def verify_token(self, given: VerifyInput) -> VerifyOutput:
        return each_tensor(self._backend.verify_token(self.moved(given)), Tensor.cpu)

    def verify_block(self, given: VerifyInput) -> VerifyOutput:
        return each_tensor(self._backend.verify_block(self.moved(given)), Tensor.cpu)

    def sample_draft(
        self, logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow
    ) -> tuple[Tensor, Tensor]:
        moved = self.there(logits), each_tensor(sampling, self.there)
        tokens, stats = self._backend.sample_draft(*moved, step, on_bad_row)
        return tokens.cpu(), stats.cpu()

    def moved(self, given: VerifyInput) -> VerifyInput:
        """The same step on the device."""
        draft, sampling = each_tensor(given.draft, self.there), each_tensor(given.sampling, self.there)
        return replace(given, target_logits=self.there(given.target_logits), draft=draft, sampling=sampling)

    def there(self, tensor: Tensor) -> Tensor:
        """On the device, with the same strides and the same distance from an aligned address."""
        if self.device.type == "cpu":
            return tensor
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        extent = sum((n - 1) * s for n, s in steps) + 1 if tensor.numel() else 0
        shift = tensor.data_ptr() % 16 // tensor.element_size()
        memory = torch.empty(shift + extent, dtype=tensor.dtype, device=self.device)
        return memory[shift:].as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def each_tensor(one: T, change: Callable[[Tensor], Tensor]) -> T:
    """`one` with each of its tensors changed."""
    values = {field.name: getattr(one, field.name) for field in fields(one)}
    return replace(one, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


def run(
    backend: Backend, case: Case, method: str, expected_acceptance: bool = True, on_bad_row: OnBadRow = "raise"
) -> VerifyOutput:
    """The case straight through a backend, without specdec.verify's checks."""
    verify: Callable[[VerifyInput], VerifyOutput] = getattr(backend, f"verify_{method}")
    return verify(as_input(case, expected_acceptance, on_bad_row))


def as_input(case: Case, expected_acceptance: bool = True, on_bad_row: OnBadRow = "raise") -> VerifyInput:
    return VerifyInput(case.target, case.draft, case.sampling, case.draft.counts(), expected_acceptance, on_bad_row)
