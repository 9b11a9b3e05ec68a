"""Tensors on their way to the host: in one copy, or where they are."""

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from specdec.engines.vllm.to_host import packed, sent


def parts() -> list[torch.Tensor]:
    return [
        torch.tensor([3, 2**24 - 1], dtype=torch.int32), torch.tensor([True, False]), torch.zeros(0),
        torch.tensor([0.25, torch.nan]),
    ]  # fmt: skip


def test_one_copy_brings_what_the_tensors_hold() -> None:
    for one, other in zip(packed(parts())(), sent(parts())(), strict=True):
        np.testing.assert_array_equal(one.astype(float), other.astype(float))
