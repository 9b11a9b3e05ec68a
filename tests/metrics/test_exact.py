"""Σ min(p, q) and entropies of a step, against PyTorch's own softmax in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from specdec.metrics.exact import ROWS, Exact, Looked
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft

V = 50


def batch_of(counts: list[int], temperature: list[float]) -> tuple[Tensor, Draft, SamplingBatch]:
    """Target rows, drafts drawn from rows of their own, and sampling parameters."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(sum(counts) + len(counts), V, generator=generator) * 2
    rows = torch.randn(sum(counts), V, generator=generator) * 2
    sampling = SamplingBatch.uniform(len(counts), seed=3)
    sampling.temperature = torch.tensor(temperature)
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    tokens, stats = sample_draft(rows, sampling.rows(owners), 0)
    return target, Draft(tokens, counts, rows, stats, torch.arange(len(rows))), sampling


def expected(target: Tensor, draft: Draft, counts: list[int], temperature: list[float]) -> tuple[Tensor, Tensor]:
    """Overlap of each draft and entropy of each target row, in float64."""
    t = torch.tensor(temperature, dtype=torch.float64)
    rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts) + 1)
    p = (target.double() / t[rows, None]).softmax(-1)
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert draft.logits is not None
    q = (draft.logits.double() / t[owners, None]).softmax(-1)
    at = torch.arange(len(q)) + owners
    return torch.minimum(p[at], q).sum(-1), -(p * p.log()).sum(-1)


def look(exact: Exact, *step: object, asking: tuple[int, ...] = ()) -> Looked:
    found = exact.look(*step, asking)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_every_draft_and_row_is_as_defined() -> None:
    counts, temperature = [2, 0, 3], [1.0, 0.7, 1.3]
    target, draft, sampling = batch_of(counts, temperature)
    overlap, entropy = expected(target, draft, counts, temperature)
    found = look(Exact(every=1), target, draft, sampling, asking=(0, 1, 2))
    order = np.argsort(found.drafts)
    assert found.drafts[order].tolist() == [0, 1, 2, 3, 4]
    at = torch.tensor([0, 1, 4, 5, 6])[order]
    torch.testing.assert_close(found.overlap[order].double(), overlap[found.drafts[order]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.entropy[order].double(), entropy[at], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.own.double(), entropy, atol=1e-4, rtol=0)


def test_one_hot_drafts_and_greedy_requests() -> None:
    target, draft, sampling = batch_of([1, 1, 1], [1.0, 0.0, 1.0])
    draft.rows = torch.tensor([-1, 1, 2])
    draft.token_ids = draft.token_ids.clone()
    draft.token_ids[1] = int(target[2].argmax())  # the greedy request's draft is what the target says
    draft.token_ids[2] = -1  # a placeholder
    found = look(Exact(every=1), target, draft, sampling)
    values = dict(zip(found.drafts.tolist(), found.overlap.tolist(), strict=True))
    assert values[0] == pytest.approx(float(target[0].softmax(-1)[draft.token_ids[0]]), abs=1e-6)
    assert values[1] == 1.0 and values[2] == 0.0
    assert dict(zip(found.drafts.tolist(), found.entropy.tolist(), strict=True))[1] == 0.0


def test_filters_are_part_of_p() -> None:
    target, draft, sampling = batch_of([1], [1.0])
    sampling.top_k = torch.tensor([1], dtype=sampling.top_k.dtype)
    assert float(look(Exact(every=1), target, draft, sampling).entropy[0]) == pytest.approx(0.0, abs=1e-6)


def test_one_step_in_so_many_and_every_request_in_turn() -> None:
    counts = [3] * 5
    step = batch_of(counts, [1.0] * 5)
    exact, seen = Exact(every=4), []
    for _ in range(4 * 5):
        found = exact.look(*step, ())
        if found is not None:
            assert 3 <= len(found.drafts) <= ROWS
            seen.append(set(found.drafts.tolist()))
    assert len(seen) == 5 and set.union(*seen) == set(range(15))


def test_under_the_block_rule_the_overlap_is_no_number() -> None:
    found = look(Exact(overlaps=False, every=1), *batch_of([2], [1.0]))
    assert found.overlap.isnan().all() and found.entropy.isfinite().all()


def test_nothing_to_look_at() -> None:
    target, draft, sampling = batch_of([0, 0], [1.0, 1.0])
    assert Exact(every=1).look(target, draft, sampling, ()) is None
    assert Exact(every=0).look(*batch_of([2], [1.0]), ()) is None


def test_parts_are_joined() -> None:
    counts = [2, 1, 3]
    target, draft, sampling = batch_of(counts, [1.0] * 3)
    whole = look(Exact(every=1), target, draft, sampling, asking=(2,))
    assert draft.logits is not None and draft.row_stats is not None
    parts = []
    for drafts, rows, requests, asking in (
        (slice(0, 2), slice(0, 3), [0], ()),
        (slice(2, 6), slice(3, 9), [1, 2], (1,)),
    ):
        piece = Draft(
            draft.token_ids[drafts], [counts[b] for b in requests], draft.logits[drafts], draft.row_stats[drafts]
        )
        parts.append(Exact(every=1).look(target[rows], piece, sampling.rows(torch.tensor(requests)), asking))
    joined = Looked.joined(parts, [0, 2])
    assert joined is not None
    a, b = np.argsort(whole.drafts), np.argsort(joined.drafts)
    assert whole.drafts[a].tolist() == joined.drafts[b].tolist() == list(range(6))
    torch.testing.assert_close(whole.overlap[a], joined.overlap[b])
    torch.testing.assert_close(whole.own, joined.own)
