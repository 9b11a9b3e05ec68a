"""V = 3 or 4, distributions that can be worked on paper, the same for every backend.

The uniforms are the documented streams, so each request's outcome is known exactly, not only its distribution.
"""

import math

import pytest
import torch

from specdec.sampling import ACCEPT, BONUS, RECOVER, SamplingBatch, philox_uniform
from specdec.verify import Draft, VerifyOutput, sample_draft, verify
from specdec.verify.reference import draft_purpose

SEEDS = list(range(200))
P = [0.5, 0.3, 0.2]
Q = [0.2, 0.3, 0.5]


def log(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log().to(torch.float32)


def u(seed: int, position: int, purpose: int) -> float:
    return philox_uniform(torch.tensor([seed]), torch.tensor([position]), purpose).item()


def one_request(
    backend: str, seed: int, target: torch.Tensor, tokens: list[int], q: torch.Tensor | None, **kw
) -> VerifyOutput:
    sampling = SamplingBatch.uniform(1, seed=seed, position=11, **kw)
    draft = Draft(torch.tensor(tokens, dtype=torch.int32), [len(tokens)], q)
    return verify(target, draft, sampling, backend=backend, expected_acceptance=True)


def test_rejection_recovers_from_the_residual(backend: str):
    # x = 2: accept where u 0.5 < 0.2. max(p - q, 0) = (0.3, 0, 0): always token 0.
    for seed in SEEDS:
        out = one_request(backend, seed, log(P, P), [2], log(Q))
        if u(seed, 11, ACCEPT) < 0.4:
            bonus = u(seed, 12, BONUS)
            assert out.token_ids.tolist() == [[2, 0 if bonus < 0.5 else 1 if bonus < 0.8 else 2]]
            assert out.num_accepted.tolist() == [1]
        else:
            assert out.token_ids.tolist() == [[0, -1]]
            assert out.num_accepted.tolist() == [0]
        assert out.acceptance_probability.item() == pytest.approx(0.4)
        assert out.expected_acceptance.item() == pytest.approx(0.2 + 0.3 + 0.2)


@pytest.mark.parametrize("x", [0, 1])
def test_a_token_that_the_target_likes_at_least_as_much_is_accepted(backend: str, x: int):
    for seed in SEEDS:
        out = one_request(backend, seed, log(P, P), [x], log(Q))
        assert out.token_ids[0, 0] == x
        assert out.acceptance_probability.item() == pytest.approx(1.0)


def test_one_hot_draft(backend: str):
    # Accept x = 2 where u < p(2) = 0.2; residual (0.5, 0.3, 0) / 0.8.
    for seed in SEEDS:
        out = one_request(backend, seed, log(P, P), [2], None)
        first = 2 if u(seed, 11, ACCEPT) < 0.2 else 0 if u(seed, 11, RECOVER) < 0.625 else 1
        assert out.token_ids[0, 0] == first
        assert out.expected_acceptance.item() == pytest.approx(0.2)


def test_the_walk_stops_at_the_first_rejection(backend: str):
    for seed in SEEDS:
        out = one_request(backend, seed, log(P, P, P, P), [2, 0, 2], log(Q, Q, Q))
        passes = [u(seed, 11 + j, ACCEPT) * Q[x] < P[x] for j, x in enumerate([2, 0, 2])]
        accepted = passes.index(False) if False in passes else 3
        assert out.num_accepted.item() == accepted
        assert (out.token_ids[0] >= 0).sum() == accepted + 1
        assert out.acceptance_probability.isnan().tolist() == [j > accepted for j in range(3)]
        assert out.expected_acceptance.tolist() == pytest.approx([0.7, 0.7, 0.7])


def test_identical_distributions_always_accept(backend: str):
    for seed in SEEDS:
        assert one_request(backend, seed, log(P, P), [seed % 3], log(P)).num_accepted.item() == 1


def test_a_token_of_probability_zero_is_never_accepted(backend: str):
    """`u q <= p` would accept it at u = 0; and a filter gives probability 0 just as -inf does."""
    for seed in SEEDS[:50]:
        assert one_request(backend, seed, log([0.5, 0.5, 0.0], P), [2], log(Q)).num_accepted.item() == 0
        out = one_request(backend, seed, log(P, P), [2], None, top_k=2)
        assert out.num_accepted.item() == 0
        assert out.token_ids[0, 0] in (0, 1)


def test_filters_hold_for_the_bonus_row(backend: str):
    for seed in SEEDS:
        out = one_request(backend, seed, log([0, 0, 1], [0.3, 0.5, 0.2]), [2], None, top_k=2)
        assert out.token_ids.tolist() == [[2, 0 if u(seed, 12, BONUS) < 0.375 else 1]]


def test_greedy(backend: str):
    target = log([0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2])
    q = torch.full((2, 3), math.nan)  # draft rows are not read
    right = one_request(backend, 0, target, [1, 2], q, temperature=0.0)
    assert right.token_ids.tolist() == [[1, 2, 0]]  # the lowest id wins the tie in the bonus row
    assert right.acceptance_probability.tolist() == [1, 1]
    wrong = one_request(backend, 0, target, [1, 0], q, temperature=0.0)
    assert wrong.token_ids.tolist() == [[1, 2, -1]]
    assert wrong.expected_acceptance.tolist() == [1, 0]


def test_temperatures_below_1e_5_are_greedy(backend: str):
    for seed in SEEDS[:20]:
        assert one_request(backend, seed, log([0.49, 0.51, 0]), [], None, temperature=9e-6).token_ids.item() == 1


def test_greedy_head_under_a_sampling_request(backend: str):
    """Row statistics with temperature 0 say that q is a point mass, whatever the row looks like."""
    tokens, stats = sample_draft(log(Q), SamplingBatch.uniform(1, temperature=0.0), 0, backend=backend)
    assert (tokens.tolist(), stats[0, 0].item()) == ([2], 0.0)
    for seed in SEEDS:
        sampling = SamplingBatch.uniform(1, seed=seed, position=11)
        out = verify(log(P, P), Draft(tokens, [1], log(Q), stats), sampling, backend=backend)
        assert out.num_accepted.item() == (u(seed, 11, ACCEPT) < 0.2)


def test_no_drafts_means_one_bonus_token(backend: str):
    for seed in SEEDS:
        out = one_request(backend, seed, log(P), [], None)
        bonus = u(seed, 11, BONUS)
        assert out.token_ids.tolist() == [[0 if bonus < 0.5 else 1 if bonus < 0.8 else 2]]


def test_sample_draft_draws_and_states_its_distribution(backend: str):
    row = log([0.1, 0.4, 0.3, 0.2])
    for seed in SEEDS:
        sampling = SamplingBatch.uniform(1, seed=seed, position=5, temperature=2.0, top_k=2)
        token, stats = sample_draft(row, sampling, 3, backend=backend)
        share = 0.4**0.5 / (0.4**0.5 + 0.3**0.5)
        x = 1 if u(seed, 5, draft_purpose(3)) < share else 2
        assert token.tolist() == [x]
        t, threshold, lse, logit = stats[0].tolist()
        assert (t, threshold, logit) == (2.0, row[0, 2].item(), row[0, x].item())
        assert math.exp(logit / t - lse) == pytest.approx(share if x == 1 else 1 - share)


def test_padding_and_different_counts(backend: str):
    sampling = SamplingBatch.uniform(3, temperature=0.0)
    target = log([0, 1, 0], [0, 0, 1], [1, 0, 0], P, [0, 1, 0], Q)
    out = verify(target, Draft(torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])), sampling, backend=backend)
    assert out.token_ids.tolist() == [[1, 2, 0], [0, -1, -1], [1, -1, -1]]
    assert out.num_accepted.tolist() == [2, 0, 0]
    assert (out.token_ids.dtype, out.num_accepted.dtype) == (torch.int32, torch.int32)
    assert out.expected_acceptance is None
