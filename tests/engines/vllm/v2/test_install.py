"""Putting the adapter into a V2 runner."""

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from specdec.config import Settings
from specdec.engines.vllm.v2 import install
from specdec.engines.vllm.v2.rows import DraftRows

SLOTS, N, V = 4, 2, 50


class MTPSpeculator:
    """What is read of vLLM's, which has made its own cache of draft logits by then."""

    def __init__(self) -> None:
        self.draft_logits = torch.zeros(SLOTS, N, V)

    def sample_draft(self, hidden_states: torch.Tensor, sample_src_positions: torch.Tensor) -> None: ...

    def init_cudagraph_manager(self, mode: Any) -> None: ...


def test_vllms_cache_of_draft_logits_is_gone_before_ours_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both at once would take the memory twice."""
    speculator = MTPSpeculator()
    theirs = weakref.ref(speculator.draft_logits)
    there: list[bool] = []

    def made(*args: Any) -> DraftRows:
        there.append(theirs() is not None)
        return DraftRows(*args)

    monkeypatch.setattr(install, "DraftRows", made)
    monkeypatch.setattr(install, "_check_combination", lambda runner: None)
    monkeypatch.setattr(install, "_check_runner", lambda runner: None)
    model = SimpleNamespace(dtype=torch.float32, seed=0, served_model_name="tiny", get_vocab_size=lambda: V)
    speculative = SimpleNamespace(draft_sample_method="probabilistic", draft_model_config=SimpleNamespace(model="none"))
    runner = SimpleNamespace(
        speculator=speculator, model_config=model, parallel_config=SimpleNamespace(data_parallel_index=0),
        speculative_config=speculative, num_speculative_steps=N,
        max_num_reqs=SLOTS, vocab_size=V, device=torch.device("cpu"),
    )  # fmt: skip
    adapter = install.V2Adapter(runner, Settings(), count=False)
    assert there == [False]
    assert adapter._rows is not None and speculator.draft_logits is adapter._rows.logits
