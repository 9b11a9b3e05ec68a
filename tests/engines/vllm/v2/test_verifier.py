"""One step of the V2 verifier: what a request gets does not depend on what shares its batch, broken rows included."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.worker.cpu.buffer_utils import UvaBuffer
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.states import RequestState

from specdec.engines.vllm.v2 import verifier as v2_verifier
from specdec.engines.vllm.v2.batch import Step
from specdec.engines.vllm.v2.verifier import Verifier
from specdec.verify import sample_draft
from tests.engines.vllm.v2.batches import PREFILL, V, request_states, step_of, verifier_of

COUNTS, BEGINS = [2, 3, 0, 1], [10, 20, 30, 40]
SAMPLED = [SamplingParams(temperature=0.9, top_k=20, seed=seed) for seed in range(4)]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> Iterator[RequestState]:
    monkeypatch.setattr(buffer_utils, "UvaBuffer", UvaBuffer)  # as in vLLM's CPU runner
    yield request_states(torch.device("cpu"))


def propose(verifier: Verifier, slots: list[int]) -> list[list[int]]:
    """Drafts of each slot, three of them, and their rows, from logits of the slot's own."""
    assert verifier._rows is not None
    drafts: list[list[int]] = []
    for slot in slots:
        g = torch.Generator().manual_seed(slot)
        drafts.append([])
        for step in range(3):
            logits, at = torch.randn(1, V, generator=g) * 2, torch.tensor([slot])
            begins = torch.tensor([BEGINS[slot]])
            ids, stats = sample_draft(logits, verifier._slots.sampling(at, begins), step)
            verifier._rows.write(at, torch.tensor(step), begins, logits, stats)
            drafts[-1].append(int(ids[0]))
    return drafts


def target_of(slot: int, count: int) -> torch.Tensor:
    return torch.randn(count + 1, V, generator=torch.Generator().manual_seed(100 + slot)) * 2


def emitted(verifier: Verifier, slots: list[int], broken: int | None = None) -> dict[int, list[int]]:
    """slot -> tokens, for a step of these slots; all rows of slot `broken` are NaN."""
    drafts = propose(verifier, slots)
    counts = [COUNTS[s] for s in slots]
    flat = [token for each, n in zip(drafts, counts, strict=True) for token in each[:n]]
    rows = [target_of(s, n) * (torch.nan if s == broken else 1) for s, n in zip(slots, counts, strict=True)]
    batch = step_of(slots, counts, flat, [BEGINS[s] for s in slots], "cpu")
    out = verifier(torch.cat(rows), batch)
    assert (out.num_sampled + out.num_rejected == torch.tensor(counts) + 1).all()
    return {s: out.sampled_token_ids[b, : out.num_sampled[b]].tolist() for b, s in enumerate(slots)}


@pytest.mark.parametrize("method", ["token", "block"])
def test_a_request_gets_the_same_in_any_company(method: str, states: RequestState) -> None:
    verifier = verifier_of(states, SAMPLED, method)
    together = emitted(verifier, [2, 0, 3, 1])
    assert together == emitted(verifier, [0, 1, 2, 3])
    assert all(emitted(verifier, [slot]) == {slot: together[slot]} for slot in range(4))


@pytest.mark.parametrize("method", ["token", "block"])
@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_step_in_parts_is_the_step_as_a_whole(
    rows: int, method: str, states: RequestState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for the copies of a few rows, but at least of one request's; a broken row, an invalid draft, a grammar
    and an unfinished prompt among them."""
    grammar = SamplingParams(temperature=1.0, seed=1, structured_outputs=StructuredOutputsParams(regex="a"))
    verifier = verifier_of(states, [*SAMPLED[:3], grammar], method)
    verifier._prefill_len.gpu[2] = BEGINS[2] + 1
    slots = [3, 0, 2, 1]
    drafts, counts = propose(verifier, slots), [COUNTS[s] for s in slots]
    batch = step_of(
        slots, counts, [t for each, n in zip(drafts, counts, strict=True) for t in each[:n]],
        [BEGINS[s] for s in slots], "cpu",
    )  # fmt: skip
    target = torch.cat([target_of(s, n) for s, n in zip(slots, counts, strict=True)])
    target[7] = torch.nan
    invalid = torch.arange(len(target)) == 4
    seen: list[int] = []
    processors = verifier._processors

    def processed(logits: torch.Tensor, step: Step) -> torch.Tensor:
        seen.append(len(logits))
        return processors(logits, step)

    verifier._processors = processed  # type: ignore[assignment]
    whole, figures = verifier(target, batch, None, invalid), verifier.take_figures()
    monkeypatch.setattr(v2_verifier, "WORKSPACE", rows * V * 4)
    parts, figures_of_parts = verifier(target, batch, None, invalid), verifier.take_figures()
    assert seen == [10, *{1: [2, 3, 1, 4], 4: [2, 4, 4], 6: [6, 4]}[rows]]
    for name in ("sampled_token_ids", "num_sampled", "num_rejected"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    assert figures is not None and figures_of_parts is not None
    for one, other in zip(figures.arrays(), figures_of_parts.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert figures.landed().bad.tolist() == [-1, -1, -1, 7] and int(parts.num_sampled[2]) == 0


def test_broken_rows_harm_their_own_request_alone(states: RequestState, caplog: pytest.LogCaptureFixture) -> None:
    verifier = verifier_of(states, SAMPLED)
    good, bad = emitted(verifier, [0, 1, 2, 3]), emitted(verifier, [0, 1, 2, 3], broken=1)
    assert {s: good[s] for s in (0, 2, 3)} == {s: bad[s] for s in (0, 2, 3)}
    assert all(0 <= token < V for token in bad[1])
    figures = verifier.take_figures()
    assert figures is not None and figures.landed().bad.tolist() == [-1, 3, -1, -1]
    assert verifier.take_figures() is None


def test_drafts_under_a_grammar_are_one_hot_and_not_lost(states: RequestState) -> None:
    """Its row is there, and says that the draft was certain to come; read as one-hot it counts for p(x) alone."""
    grammar = SamplingParams(temperature=1.0, seed=1, structured_outputs=StructuredOutputsParams(regex="a"))
    verifier = verifier_of(states, [SAMPLED[0], grammar])
    drafts = propose(verifier, [0, 1])
    counts = [1, 1]
    target = torch.cat([target_of(0, 1), target_of(1, 1)])
    verifier(target, step_of([0, 1], counts, [drafts[0][0], drafts[1][0]], BEGINS[:2], "cpu"))
    figures = verifier.take_figures()
    assert figures is not None and figures.landed().lost == 0
    p = target[2].softmax(-1)[drafts[1][0]]
    assert figures.landed().probability[1] == pytest.approx(float(p), abs=1e-6)


def test_invalid_drafts_are_replaced_from_the_target(states: RequestState) -> None:
    """As the runner marks drafts that the grammar's mask did not reach: by the row whose input they are."""
    verifier = verifier_of(states, SAMPLED)
    drafts = propose(verifier, [1])[0]
    target = torch.zeros(4, V)
    target[torch.arange(3), drafts] = 100.0  # as good as certain to be accepted
    batch = step_of([1], [3], drafts, BEGINS[1:2], "cpu")
    assert verifier(target, batch).num_sampled.tolist() == [4]
    marked = torch.tensor([False, False, True, True])
    assert verifier(target, batch, None, marked).num_sampled.tolist() == [2]


def test_a_chunk_of_a_prompt_decides_nothing(states: RequestState) -> None:
    verifier = verifier_of(states, SAMPLED)
    batch = step_of([0, 1], [0, 0], [], [PREFILL - 1, PREFILL], "cpu")
    out = verifier(torch.randn(2, V), batch)
    assert out.num_sampled.tolist() == [0, 1] and out.num_rejected.tolist() == [0, 0]


def test_placeholders_that_nobody_proposed_are_rejected(states: RequestState) -> None:
    """A first step that begins inside the prompt, whose cache came from elsewhere, padded with drafts of token 0."""
    verifier = verifier_of(states, SAMPLED)
    target = torch.zeros(4, V)
    target[:, 0] = 100.0
    out = verifier(target, step_of([0], [3], [0, 0, 0], [PREFILL], "cpu"))
    assert out.num_sampled.tolist() == [1] and out.sampled_token_ids[0, 0] == 0
