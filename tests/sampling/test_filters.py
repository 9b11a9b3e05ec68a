"""The one-threshold rule against hand-worked rows, against the definition by brute force, and against vLLM's steps."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec.sampling import filtered_logits, inverse_cdf, thresholds


def kept(
    logits: list[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[int]:
    row = torch.tensor([logits])
    out = filtered_logits(
        row, torch.tensor([temperature]), torch.tensor([top_k]), torch.tensor([top_p]), torch.tensor([min_p])
    )
    return (out[0] > -torch.inf).nonzero()[:, 0].tolist()


HALVES = [math.log(x) for x in (0.5, 0.25, 0.125, 0.0625, 0.0625)]


def test_nothing_filtered():
    assert kept(HALVES) == [0, 1, 2, 3, 4]
    assert kept(HALVES, top_k=5) == kept(HALVES, top_k=99) == [0, 1, 2, 3, 4]


def test_top_k():
    assert kept(HALVES, top_k=1) == [0]
    assert kept(HALVES, top_k=3) == [0, 1, 2]


def test_top_k_keeps_every_tie():
    assert kept(HALVES, top_k=4) == [0, 1, 2, 3, 4]
    assert kept([1.0, 2.0, 2.0, 2.0], top_k=1) == [1, 2, 3]
    assert kept([-0.0, 0.0, -1.0], top_k=1) == [0, 1]


def test_top_p_keeps_the_token_that_reaches_the_mass():
    assert kept(HALVES, top_p=0.49) == [0]
    assert kept(HALVES, top_p=0.51) == [0, 1]
    assert kept(HALVES, top_p=0.76) == [0, 1, 2]


def test_top_p_keeps_every_tie_and_at_least_the_maximum():
    assert kept(HALVES, top_p=0.9) == [0, 1, 2, 3, 4]
    assert kept([0.0] * 6, top_p=0.1) == [0, 1, 2, 3, 4, 5]
    assert kept([50.0, 0.0, 0.0], top_p=1e-6) == [0]


def test_top_p_counts_the_mass_that_top_k_leaves():
    # Of 0.5 + 0.25 = 0.75 the first token is 2/3: enough for 0.6, though only 0.5 of the whole.
    assert kept(HALVES, top_p=0.6) == [0, 1]
    assert kept(HALVES, top_p=0.6, top_k=2) == [0]


def test_top_p_counts_the_mass_that_min_p_leaves():
    assert kept(HALVES, top_p=0.6, min_p=0.4) == [0]


def test_min_p_is_relative_to_the_maximum():
    assert kept(HALVES, min_p=0.3) == [0, 1]
    assert kept(HALVES, min_p=1.0) == [0]


def test_temperature_comes_first():
    # At T = 0.5 the probabilities are squared: 0.25 : 0.0625 leaves w = 0.25 for the second token.
    assert kept(HALVES, temperature=0.5, min_p=0.3) == [0]
    assert kept(HALVES, temperature=2.0, min_p=0.6) == [0, 1]


def test_very_peaked_row():
    """A pivot search over probabilities does not end here: everything but one token weighs next to nothing."""
    assert kept([1000.0, *[0.0] * 50], top_p=0.999999) == [0]
    assert kept([88.0, *[-88.0] * 50], top_p=0.5, top_k=3) == [0]


def test_minus_infinity_is_allowed():
    assert kept([0.0, -math.inf, 0.0], top_k=2) == [0, 2]
    assert kept([0.0, -math.inf, -math.inf], top_k=2) == [0]


def test_filtered_logits_values_and_greedy_rows():
    row = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.bfloat16)
    before = row.clone()
    args = (torch.tensor([2]), torch.tensor([1.0]), torch.tensor([0.0]))
    out = filtered_logits(row, torch.tensor([0.5]), *args)
    assert out.dtype == torch.float32
    assert out.tolist() == [[4.0, 2.0, -math.inf]]
    assert filtered_logits(row, torch.tensor([0.0]), *args).tolist() == [[2.0, 1.0, -math.inf]]
    assert torch.equal(row, before)


def by_definition(row: torch.Tensor, t: float, top_k: int, top_p: float, min_p: float) -> list[int]:
    """Steps 1 to 3 of specdec/sampling/filters.py, one token at a time."""
    w = ((row.double() - row.max()) / t).exp()
    stay = [v for v in range(len(row)) if w[v] >= min_p * (1 - 1e-12)]
    if top_k:
        stay = [v for v in stay if sum(row[u] > row[v] for u in range(len(row))) < top_k]
    mass = sum(w[v] for v in stay)
    if top_p < 1:
        stay = [v for v in stay if sum((w[u] for u in stay if row[u] > row[v]), start=0.0) < top_p * mass]
    return stay


@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(1, 24),
    t=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 24),
    top_p=st.sampled_from([0.05, 0.35, 0.77, 0.97, 1.0]),
    min_p=st.sampled_from([0.0, 0.03, 0.21]),
    coarse=st.booleans(),
)
def test_against_the_definition(seed: int, vocab: int, t: float, top_k: int, top_p: float, min_p: float, coarse: bool):
    row = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * 2
    row = row.round() if coarse else row  # rounded logits are full of ties
    t, top_p, min_p = (float(torch.tensor(x)) for x in (t, top_p, min_p))
    assert kept(row.tolist(), t, top_k, top_p, min_p) == by_definition(row, t, top_k, top_p, min_p)


def vllm_steps(logits: torch.Tensor, k: int, p: float, min_p: float) -> torch.Tensor:
    """MinPLogitsProcessor.apply and apply_top_k_top_p_pytorch of vLLM, restated (in float64) for rows without ties."""
    probs = logits.softmax(-1)
    logits = logits.masked_fill(probs < probs.amax(-1, keepdim=True) * min_p, -torch.inf)
    ordered, index = logits.sort(dim=-1)
    ordered = ordered.masked_fill(ordered < ordered[:, -k, None], -torch.inf)
    mask = ordered.softmax(-1).cumsum(-1) <= 1 - p
    mask[:, -1] = False
    return logits.scatter(-1, index, ordered.masked_fill(mask, -torch.inf))


@pytest.mark.parametrize(
    ("k", "p", "min_p"), [(40, 1.0, 0.0), (1000, 0.9, 0.0), (20, 0.8, 0.0), (30, 0.7, 0.05), (5, 0.95, 0.2)]
)
def test_same_tokens_as_vllm(k: int, p: float, min_p: float):
    logits = torch.randn(200, 1000, generator=torch.Generator().manual_seed(k)) * 2
    full = torch.ones(200)
    ours = filtered_logits(logits, full * 0.8, full.int() * k, full * p, full * min_p)
    theirs = vllm_steps(
        logits.double() / float(torch.tensor(0.8)), k, float(torch.tensor(p)), float(torch.tensor(min_p))
    )
    assert torch.equal(ours > -torch.inf, theirs > -torch.inf)


def test_threshold_is_in_raw_units():
    t = thresholds(
        torch.tensor([HALVES]), torch.tensor([3.0]), torch.tensor([2]), torch.tensor([1.0]), torch.tensor([0.0])
    )
    assert t.item() == torch.tensor(HALVES[1]).item()


class TestInverseCdf:
    def draw(self, weights: list[float], u: float) -> int:
        return inverse_cdf(torch.tensor([weights]), torch.tensor([u], dtype=torch.float64)).item()

    def test_boundaries_belong_to_the_next_token(self):
        assert [self.draw([0.25, 0.5, 0.25], u) for u in (0, 0.2499, 0.25, 0.7499, 0.75, 0.9999)] == [0, 0, 1, 1, 2, 2]

    def test_no_token_without_weight(self):
        assert self.draw([0.0, 1.0, 0.0], 0.0) == 1
        assert self.draw([0.0, 1.0, 0.0], 1 - 2**-53) == 1
        assert self.draw([0.1, 0.0, 0.1], 0.5) == 2

    def test_weights_need_no_normalising(self):
        assert self.draw([10.0, 30.0], 0.3) == 1

    def test_tiny_probabilities_come_up(self):
        """float32 Gumbel noise never draws a token of probability 1e-9; u close to 1 must."""
        assert self.draw([1.0, 1e-9], 1 - 2**-33) == 1
