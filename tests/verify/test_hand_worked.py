"""V = 3 or 4, distributions that can be worked on paper, the same for every backend."""

import math
from dataclasses import replace

import pytest
import torch

from specdec.sampling import ACCEPT, BONUS, RECOVER, SamplingBatch
from specdec.verify import Draft, sample_draft, verify
from specdec.verify.reference import draft_purpose
from tests.helpers.worked import log, once_per_seed, sampling, u

P = [0.5, 0.3, 0.2]
Q = [0.2, 0.3, 0.5]


def test_rejection_recovers_from_the_residual(backend: str):
    # x = 2: accept where u 0.5 < 0.2. max(p - q, 0) = (0.3, 0, 0): always token 0.
    out = once_per_seed(backend, log(P, P), [2], log(Q))
    for accept, bonus, tokens, accepted in zip(
        u(0, ACCEPT), u(1, BONUS), out.token_ids.tolist(), out.num_accepted, strict=True
    ):
        if accept < 0.4:
            assert (tokens, accepted) == ([2, 0 if bonus < 0.5 else 1 if bonus < 0.8 else 2], 1)
        else:
            assert (tokens, accepted) == ([0, -1], 0)
    assert out.acceptance_probability.tolist() == pytest.approx([0.4] * len(out.token_ids))
    assert out.expected_acceptance.tolist() == pytest.approx([0.2 + 0.3 + 0.2] * len(out.token_ids))


@pytest.mark.parametrize("x", [0, 1])
def test_a_token_that_the_target_likes_at_least_as_much_is_accepted(backend: str, x: int):
    out = once_per_seed(backend, log(P, P), [x], log(Q))
    assert (out.token_ids[:, 0] == x).all()
    assert out.acceptance_probability.tolist() == pytest.approx([1.0] * len(out.token_ids))


def test_one_hot_draft(backend: str):
    # Accept x = 2 where u < p(2) = 0.2; residual (0.5, 0.3, 0) / 0.8.
    out = once_per_seed(backend, log(P, P), [2], None)
    for accept, recover, token in zip(u(0, ACCEPT), u(0, RECOVER), out.token_ids[:, 0], strict=True):
        assert token == (2 if accept < 0.2 else 0 if recover < 0.625 else 1)
    assert out.expected_acceptance.tolist() == pytest.approx([0.2] * len(out.token_ids))


def test_the_walk_stops_at_the_first_rejection(backend: str):
    drafts = [2, 0, 2]
    out = once_per_seed(backend, log(P, P, P, P), drafts, log(Q, Q, Q))
    for b, numbers in enumerate(zip(*(u(j, ACCEPT) for j in range(3)), strict=True)):
        passes = [number * Q[x] < P[x] for number, x in zip(numbers, drafts, strict=True)]
        accepted = passes.index(False) if False in passes else 3
        assert out.num_accepted[b] == accepted
        assert (out.token_ids[b] >= 0).sum() == accepted + 1
        assert out.acceptance_probability.view(-1, 3)[b].isnan().tolist() == [j > accepted for j in range(3)]
    assert out.expected_acceptance.tolist() == pytest.approx([0.7] * 3 * len(out.token_ids))


@pytest.mark.parametrize("x", [0, 1, 2])
def test_identical_distributions_always_accept(backend: str, x: int):
    assert (once_per_seed(backend, log(P, P), [x], log(P)).num_accepted == 1).all()


def test_a_token_of_probability_zero_is_never_accepted(backend: str):
    """`u q <= p` would accept it at u = 0; and a filter gives probability 0 just as -inf does."""
    assert (once_per_seed(backend, log([0.5, 0.5, 0.0], P), [2], log(Q)).num_accepted == 0).all()
    out = once_per_seed(backend, log(P, P), [2], None, top_k=2)
    assert (out.num_accepted == 0).all() and set(out.token_ids[:, 0].tolist()) <= {0, 1}


def test_filters_hold_for_the_bonus_row(backend: str):
    out = once_per_seed(backend, log([0, 0, 1], [0.3, 0.5, 0.2]), [2], None, top_k=2)
    assert out.token_ids.tolist() == [[2, 0 if bonus < 0.375 else 1] for bonus in u(1, BONUS)]


def test_greedy(backend: str):
    target = log([0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]).repeat(2, 1)
    draft = Draft(torch.tensor([1, 2, 1, 0]), [2, 2], torch.full((4, 3), math.nan))  # draft rows are not read
    out = verify(target, draft, SamplingBatch.uniform(2, temperature=0.0), "token", backend, expected_acceptance=True)
    # The lowest id wins the tie in the bonus row.
    assert out.token_ids.tolist() == [[1, 2, 0], [1, 2, -1]]
    assert out.acceptance_probability.tolist() == [1, 1, 1, 0]
    assert out.expected_acceptance.tolist() == [1, 1, 1, 0]


def test_temperatures_below_1e_5_are_greedy(backend: str):
    """Compared as float32 numbers: that of 1e-5 is not greedy, though below the float64; its neighbour below is.

    p = q, and drafts other than the argmax: a greedy request rejects the first, the others accept all.
    """
    limit = torch.tensor(1e-5)
    batch = SamplingBatch.uniform(3, seed=1)
    batch.temperature = torch.stack([limit.nextafter(torch.tensor(0.0)), limit, limit.nextafter(torch.tensor(1.0))])
    row = torch.tensor([[0.0, 1e-5, -1e-5]])
    draft = Draft(torch.tensor([0, 2] * 3), [2] * 3, row.repeat(6, 1))
    for method in ("token", "block"):
        out = verify(row.repeat(9, 1), draft, batch, method, backend)
        assert (out.num_accepted.tolist(), out.token_ids[0].tolist()) == ([0, 2, 2], [1, -1, -1])
    tokens, stats = sample_draft(row.repeat(3, 1), batch, 0, backend)
    log_sum_exp = (row.double() / batch.temperature[1:, None].double()).logsumexp(-1)
    assert tokens[0] == 1
    assert stats[:, 0].tolist() == [0, *batch.temperature[1:].tolist()]
    assert stats[:, 2].tolist() == pytest.approx([0, *log_sum_exp.tolist()])


def test_greedy_head_under_a_sampling_request(backend: str):
    """Row statistics with temperature 0 say that q is a point mass, whatever the row looks like."""
    batch = sampling()
    many = len(batch)
    rows = log(Q).repeat(many, 1)
    tokens, stats = sample_draft(rows, replace(batch, temperature=torch.zeros(many)), 0, backend=backend)
    assert (tokens == 2).all() and (stats[:, 0] == 0).all()
    out = verify(log(P, P).repeat(many, 1), Draft(tokens, [1] * many, rows, stats), batch, backend=backend)
    assert out.num_accepted.tolist() == [number < 0.2 for number in u(0, ACCEPT)]


def test_no_drafts_means_one_bonus_token(backend: str):
    out = once_per_seed(backend, log(P), [], None)
    assert out.token_ids.tolist() == [[0 if bonus < 0.5 else 1 if bonus < 0.8 else 2] for bonus in u(0, BONUS)]


def test_sample_draft_draws_and_states_its_distribution(backend: str):
    row = log([0.1, 0.4, 0.3, 0.2])
    batch = sampling(temperature=2.0, top_k=2)
    tokens, stats = sample_draft(row.repeat(len(batch), 1), batch, 3, backend=backend)
    share = 0.4**0.5 / (0.4**0.5 + 0.3**0.5)
    for number, token, (t, threshold, lse, logit) in zip(u(0, draft_purpose(3)), tokens, stats.tolist(), strict=True):
        x = 1 if number < share else 2
        assert (token, t, threshold, logit) == (x, 2.0, row[0, 2].item(), row[0, x].item())
        assert math.exp(logit / t - lse) == pytest.approx(share if x == 1 else 1 - share)


def test_padding_and_different_counts(backend: str):
    greedy = SamplingBatch.uniform(3, temperature=0.0)
    target = log([0, 1, 0], [0, 0, 1], [1, 0, 0], P, [0, 1, 0], Q)
    out = verify(target, Draft(torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])), greedy, backend=backend)
    assert out.token_ids.tolist() == [[1, 2, 0], [0, -1, -1], [1, -1, -1]]
    assert out.num_accepted.tolist() == [2, 0, 0]
    assert (out.token_ids.dtype, out.num_accepted.dtype) == (torch.int32, torch.int32)
    assert out.expected_acceptance is None
