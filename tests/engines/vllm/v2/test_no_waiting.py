"""No step of the V2 runner waits for the device: everything runs on tensors without data (meta.py)."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm")

from vllm import SamplingParams
from vllm.v1.worker.cpu.buffer_utils import UvaBuffer
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.states import RequestState

from specdec.engines.vllm.requests import Admissions
from specdec.engines.vllm.v2 import verifier as v2_verifier
from specdec.engines.vllm.v2.drafter import Drafter
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.engines.vllm.v2.verifier import Verifier
from tests.engines.vllm.meta import META, meta
from tests.engines.vllm.v2.batches import SLOTS, N, V, request_states, step_of, verifier_of


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> RequestState:
    """vLLM's own; its buffers in mapped host memory are host memory here, as in its CPU runner."""
    monkeypatch.setattr(buffer_utils, "UvaBuffer", UvaBuffer)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    return request_states(META)


def verifier(states: RequestState, backend: str, method: str = "token") -> Verifier:
    params = [SamplingParams(temperature=0.7, top_k=5, seed=slot or None) for slot in range(4)]
    return verifier_of(states, params, method, backend)


def batch_of(counts: list[int]) -> Any:
    return step_of(list(range(len(counts))), counts, [0] * sum(counts), [9] * len(counts), "meta")


@pytest.mark.parametrize("method", ["token", "block"])
@pytest.mark.parametrize("counts", [[3, 3, 3], [2, 0, 3, 1], [0, 0]])
@pytest.mark.parametrize("in_parts", [False, True])
def test_a_verify_step(
    in_parts: bool, counts: list[int], method: str, states: RequestState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2_verifier, "WORKSPACE", 2 * V * 4 if in_parts else 2**30)
    batch = batch_of(counts)
    rows = sum(counts) + len(counts)
    invalid = meta(rows, dtype=torch.bool)
    logits = meta(rows, V, dtype=torch.bfloat16)
    out = verifier(states, "without-kernels", method)(logits, batch, None, invalid)
    assert out.sampled_token_ids.shape == (len(counts), max(counts) + 1)
    assert out.num_sampled.shape == out.num_rejected.shape == (len(counts),)


def test_drawing_drafts() -> None:
    class Speculator:
        model = None

        def sample_draft(self, hidden_states: Tensor, sample_src_positions: Tensor) -> Tensor:
            raise AssertionError("the drafter stands in its place")

        def compute_draft_logits(self, hidden_states: Tensor, step: int) -> Tensor:
            return meta(len(hidden_states), V, dtype=torch.bfloat16)

    slots, rows = SlotTable(Admissions(0, V), SLOTS, META), DraftRows(SLOTS, N, V, torch.bfloat16, META)
    drafter = Drafter(Speculator(), slots, rows, "without-kernels")
    ids = drafter.sample(meta(5, 16), meta(5), meta(5), meta(SLOTS), meta(SLOTS), meta(), rows.logits)
    assert ids.shape == (5,) and ids.dtype == torch.int64


def test_reading_a_value_would_show(states: RequestState) -> None:
    """The reference backend looks at values as it goes."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        verifier(states, "reference")(meta(8, V, dtype=torch.bfloat16), batch_of([3, 3]))
