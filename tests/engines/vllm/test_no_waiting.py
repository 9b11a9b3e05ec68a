"""No step of the V1 runner waits for the device because of us: everything runs on tensors without data (meta.py).

What vLLM itself waits for there (the tokens so far, for penalties and the like) is not in these batches.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm")

from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from specdec.drafting import NEUTRAL, DraftScales, running
from specdec.engines.vllm import logits
from specdec.engines.vllm.drafts import DraftStore
from specdec.engines.vllm.requests import Admissions, RequestTable
from specdec.engines.vllm.verifier import Verifier
from specdec.sampling import SamplingBatch
from specdec.verify import Draft
from tests.engines.vllm.meta import META, meta

V, N = 50, 3
REQUESTS = ["a", "b", "c", "d"]


@pytest.fixture(autouse=True)
def pinned_memory_is_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)


def params(slot: int) -> SimpleNamespace:
    return SimpleNamespace(
        temperature=0.7, top_k=5, top_p=0.9, min_p=0.0, seed=slot or None, structured_outputs=None
    )  # fmt: skip


def runner_of(logprobs: int | None) -> Any:
    """The part of a V1 runner that is read."""
    metadata = SimpleNamespace(
        thinking_budget_state_holder=None, no_penalties=True, bad_words_token_ids={}, allowed_token_ids_mask=None,
        logitsprocs=SimpleNamespace(non_argmax_invariant=[]), max_num_logprobs=logprobs, logprob_token_ids=None,
    )  # fmt: skip
    sampler = SimpleNamespace(
        logprobs_mode="processed_logprobs",
        compute_logprobs=lambda rows: rows.log_softmax(-1),
        gather_logprobs=lambda values, count, tokens: values.gather(-1, tokens[:, None]),
    )
    batch = SimpleNamespace(
        sampling_metadata=metadata, generators={}, req_ids=REQUESTS, num_reqs=len(REQUESTS),
        update_async_output_token_ids=lambda: None,
    )  # fmt: skip
    return SimpleNamespace(
        requests={name: SimpleNamespace(sampling_params=params(slot)) for slot, name in enumerate(REQUESTS)},
        input_batch=batch, sampler=sampler, use_async_scheduling=True, _draft_token_req_ids=None, device=META,
        seq_lens=meta(8, dtype=torch.int32),
        max_num_reqs=8, num_spec_tokens=N, vllm_config=SimpleNamespace(reasoning_config=None),
    )  # fmt: skip


def spec_of(counts: list[int]) -> SpecDecodeMetadata:
    drafts, batch = meta(sum(counts), dtype=torch.int32), meta(len(counts), dtype=torch.int32)
    return SpecDecodeMetadata(drafts, counts, batch, batch, drafts, batch, meta(sum(counts) + len(counts)))


def store_of(requests: list[str], bound: int | None) -> DraftStore:
    """With the drafts of these requests, after others that have come and gone."""
    store = DraftStore(N, bound, META)
    for batch in (["gone", *requests], requests[::-1]):
        store.begin(batch)
        for step in range(N):
            store.write(step, rows(len(batch)), meta(len(batch), 4, dtype=torch.float64))
        store.release("gone")
    return store


def rows(count: int) -> Tensor:
    return meta(count, V, dtype=torch.bfloat16)


def verifier(store: DraftStore | None, method: str, logprobs: int | None, backend: str = "without-kernels") -> Verifier:
    settings: Any = SimpleNamespace(method=method, backend=backend)
    return Verifier(runner_of(logprobs), RequestTable(Admissions(0, V), META), store, settings, reports=False)


@pytest.mark.parametrize("method", ["token", "block"])
@pytest.mark.parametrize("logprobs", [None, 0])
@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [2, 0, 3, 1], None])
def test_a_verify_step(counts: list[int] | None, logprobs: int | None, method: str) -> None:
    total = 4 + sum(counts or [])
    out = verifier(store_of(REQUESTS, None), method, logprobs).sample(rows(total), spec_of(counts) if counts else None)
    assert out.sampled_token_ids.shape == (4, max(counts or [0]) + 1)
    assert (out.logprobs_tensors is None) == (logprobs is None)


def test_logit_biases_come_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from pageable memory would wait, which tensors without data do not show."""
    pinned: list[Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    logits._add_biases(rows(5), {0: {3: 1.5, 7: -2.0}, 2: {4: 9.0}}, [2, 1, 2])
    assert [t.tolist() for t in pinned] == [[3, 7], [1.5, -2.0], [4], [9.0]]


def test_draft_rows_under_a_bound() -> None:
    kept = store_of(REQUESTS, 2).take(REQUESTS, [3] * 4)
    assert kept is not None and kept.rows.shape == (12,) and kept.lost == 6


def test_draft_scales_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY", 1)
    scales, counts = DraftScales(NEUTRAL, META, follow=True), [2, 0, 3, 1]
    draft = Draft(meta(6), counts, rows(12), meta(12, 4, dtype=torch.float64), meta(6))
    scales.look(rows(10), draft, SamplingBatch.uniform(4, device=META), meta(4), "without-kernels")
    assert scales.of(meta(4)).shape == (4,)


def test_reading_a_value_would_show() -> None:
    """The reference backend looks at values as it goes."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        verifier(store_of(REQUESTS, None), "token", None, "reference").sample(rows(8), spec_of([1] * 4))
