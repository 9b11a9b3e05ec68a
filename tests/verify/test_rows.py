"""Draft.rows: kept rows are read where they stand in a pool, and -1 means that none is kept."""

from dataclasses import replace

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.verify import Draft, verify
from tests.helpers.cases import Case, random_case


def in_a_pool(case: Case, seed: int) -> Case:
    """The same case with its draft rows scattered over a larger pool, whose other rows are NaN."""
    n, vocab = case.draft.logits.shape
    rows = torch.randperm(3 * n, generator=torch.Generator().manual_seed(seed))[:n]
    logits = torch.full((3 * n, vocab), torch.nan, dtype=case.draft.logits.dtype)
    logits[rows] = case.draft.logits
    stats = None
    if case.draft.row_stats is not None:
        stats = torch.full((3 * n, 4), torch.nan, dtype=torch.float64)
        stats[rows] = case.draft.row_stats
    return replace(case, draft=replace(case.draft, logits=logits, row_stats=stats, rows=rows))


@pytest.mark.parametrize("method", ["token", "block"])
@pytest.mark.parametrize("kind", ["stats", "logits"])
def test_a_pool_gives_what_the_rows_give(backend: str, method: str, kind: str):
    case = random_case(1, 300, 3, torch.bfloat16, kind, counts=[2, 0, 1])
    pool = in_a_pool(case, 2)
    a, b = (verify(c.target, c.draft, c.sampling, method, backend, expected_acceptance=True) for c in (case, pool))
    assert torch.equal(a.token_ids, b.token_ids)
    assert torch.equal(a.expected_acceptance, b.expected_acceptance)


@pytest.mark.parametrize("method", ["token", "block"])
def test_a_draft_without_a_row_is_one_hot(backend: str, method: str):
    """Request 1 loses its rows; the others are verified as before."""
    case = random_case(6, 300, 3, counts=[2, 2, 1])
    rows = torch.tensor([0, 1, -1, -1, 4])
    mixed = verify(case.target, replace(case.draft, rows=rows), case.sampling, method, backend)
    sampled = verify(case.target, case.draft, case.sampling, method, backend)
    one_hot = verify(case.target, Draft(case.draft.token_ids, [2, 2, 1]), case.sampling, "token", backend)
    assert (sampled.token_ids != one_hot.token_ids).any(1).all()
    for request, expected in enumerate([sampled, one_hot, sampled]):
        assert torch.equal(mixed.token_ids[request], expected.token_ids[request])


def test_an_index_that_does_not_fit():
    case = random_case(4, 20, 2, counts=[1, 2])

    def refused(match: str, rows: torch.Tensor) -> None:
        with pytest.raises(SpecdecError, match=match):
            verify(case.target, replace(case.draft, rows=rows), case.sampling)

    refused("rows holds 3: draft logits have 3 rows", torch.tensor([0, 3, 1]))
    refused("rows holds -2: draft logits have 3 rows", torch.tensor([0, -2, 1]))
    refused(r"pass int64 \[3\]", torch.tensor([0, 1]))
    refused(r"rows is torch.int32", torch.tensor([0, 1, 2], dtype=torch.int32))
