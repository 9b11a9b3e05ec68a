"""A request's tokens depend on its own seed, position and rows: not on the batch around it, nor on earlier calls."""

import torch

from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft, verify
from tests.helpers.cases import Case, random_case


def alone(case: Case, b: int) -> Case:
    """Request b of the case as a batch of one."""
    counts = case.draft.counts()
    first = sum(counts[:b])
    rows = slice(first, first + counts[b])
    draft = Draft(case.draft.token_ids[rows], [counts[b]], case.draft.logits[rows], case.draft.row_stats[rows])
    return Case(case.target[first + b : first + b + counts[b] + 1], draft, case.sampling.rows(torch.tensor([b])))


def test_batch_composition_does_not_matter(backend: str):
    case = random_case(1, 300, 4, counts=[2, 0, 3, 1])
    together = verify(case.target, case.draft, case.sampling, backend=backend)
    for b, n in enumerate(case.draft.counts()):
        one = alone(case, b)
        out = verify(one.target, one.draft, one.sampling, backend=backend)
        assert out.token_ids[0].tolist() == together.token_ids[b, : n + 1].tolist()
        assert (together.token_ids[b, n + 1 :] == -1).all()


def test_another_request_in_the_batch_changes_nothing(backend: str):
    """Seeded requests beside unseeded ones: known to disturb each other elsewhere."""
    case = random_case(2, 300, 4, counts=[2, 1, 2, 3])
    before = verify(case.target, case.draft, case.sampling, backend=backend).token_ids
    case.sampling.seed[::2] = SamplingBatch.uniform(2).seed
    after = verify(case.target, case.draft, case.sampling, backend=backend).token_ids
    assert torch.equal(before[1::2], after[1::2])


def test_same_seed_position_and_step_repeat(backend: str):
    logits = torch.randn(4, 400, generator=torch.Generator().manual_seed(0))
    first, _ = sample_draft(logits, SamplingBatch.uniform(4, seed=4, position=9), 1, backend=backend)
    again, _ = sample_draft(logits, SamplingBatch.uniform(4, seed=4, position=9), 1, backend=backend)
    other_step, _ = sample_draft(logits, SamplingBatch.uniform(4, seed=4, position=9), 2, backend=backend)
    same_token, _ = sample_draft(logits, SamplingBatch.uniform(4, seed=4, position=10), 0, backend=backend)
    other_seed, _ = sample_draft(logits, SamplingBatch.uniform(4, seed=5, position=9), 1, backend=backend)
    assert torch.equal(first, again)
    assert not torch.equal(first, other_step)
    assert not torch.equal(first, same_token)  # drafted in the next step, behind a rejection
    assert not torch.equal(first, other_seed)


def test_each_request_uses_its_own_seed(backend: str):
    """Identical rows: equal seeds give equal tokens, and unseeded requests differ from one another."""
    batch = 6
    rows = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0)).repeat(batch, 1)
    none = Draft(torch.empty(0, dtype=torch.int32), [0] * batch)
    seeded = verify(rows, none, SamplingBatch.uniform(batch, seed=1), backend=backend).token_ids
    unseeded = verify(rows, none, SamplingBatch.uniform(batch), backend=backend).token_ids
    assert len(seeded.unique()) == 1
    assert len(unseeded.unique()) > 2
    mixed = SamplingBatch.uniform(batch)
    mixed.seed[2] = mixed.seed[5] = 1
    out = verify(rows, none, mixed, backend=backend).token_ids
    assert out[2] == out[5] == seeded[0]


def test_verify_uses_the_q_that_sampled(backend: str):
    """Drafts sampled from bf16 rows: with p = q the ratio is 1 whether q is recomputed or stated."""
    g = torch.Generator().manual_seed(3)
    logits = (torch.randn(3, 500, generator=g) * 3).bfloat16()
    sampling = SamplingBatch.uniform(3, temperature=0.7, top_k=40, top_p=0.9, seed=6)
    tokens, stats = sample_draft(logits, sampling, 0, backend=backend)
    target = torch.stack([logits, logits], 1).view(6, 500)
    for row_stats in (stats, None):
        out = verify(
            target, Draft(tokens, [1] * 3, logits, row_stats), sampling, backend=backend, expected_acceptance=True
        )
        assert out.num_accepted.tolist() == [1] * 3
        torch.testing.assert_close(out.expected_acceptance, torch.ones(3), atol=1e-6, rtol=0)


def test_stated_statistics_win_over_the_requests_parameters(backend: str):
    """The head may draft at a temperature of its own."""
    case = random_case(8, 60, 5, sampling=SamplingBatch.uniform(5, seed=2), counts=[1] * 5)
    other = SamplingBatch.uniform(5, seed=2, temperature=0.4, top_k=10)
    tokens, stats = sample_draft(case.draft.logits, other, 0, backend=backend)
    draft = Draft(tokens, [1] * 5, case.draft.logits, stats)
    out = verify(case.target, draft, case.sampling, backend=backend, expected_acceptance=True)
    q = (case.draft.logits.double() / float(torch.tensor(0.4))).topk(10, dim=-1)
    q = torch.zeros(5, 60, dtype=torch.float64).scatter(1, q.indices, q.values.softmax(-1))
    p = case.target[::2].double().softmax(-1)
    torch.testing.assert_close(out.expected_acceptance, torch.minimum(p, q).sum(-1).float(), atol=1e-6, rtol=0)
