"""Texts that the target samples by itself."""

import pytest
import torch

from specdec.evaluation.continuations import sample_continuations
from specdec.evaluation.filters import Filters
from specdec.training.data import Windows

PROMPTS = [[0, 70, 71], [0, 80, 81, 82, 83, 84], [0, 90]]


@torch.no_grad()
def next_logits(target, tokens):
    tokens = torch.tensor([tokens])
    return target.logits(target.hidden(Windows(tokens, torch.zeros_like(tokens)))[0, -1])


def test_greedy_continuations_without_a_cache(target):
    """Prompts of unlike lengths in one batch continue as each alone, run anew for every token."""
    outputs = sample_continuations(target, PROMPTS, Filters(0), 6, seed=0)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        tokens = list(prompt)
        for token in output:
            assert token == next_logits(target, tokens).argmax()
            tokens.append(token)
        assert len(output) == 6 or output[-1] == 0


def test_tokens_follow_the_setting(target):
    """The second token's law given the first, by its distribution under the filters: chi-square over 4,000 draws."""
    filters = Filters(0.8, top_k=5)
    outputs = sample_continuations(target, [PROMPTS[0]] * 4000, filters, 2, seed=0)
    first = max({o[0] for o in outputs}, key=[o[0] for o in outputs].count)
    seconds = torch.tensor([o[1] for o in outputs if o[0] == first and len(o) > 1])
    p = filters.probabilities(next_logits(target, [*PROMPTS[0], first])).double()
    counts = torch.bincount(seconds, minlength=len(p)).double()
    assert counts[p == 0].sum() == 0 and len(seconds) > 800
    expected = p[p > 0] * len(seconds)
    statistic = ((counts[p > 0] - expected) ** 2 / expected).sum()
    assert statistic < 25, f"chi-square {statistic:.1f} with {len(expected) - 1} degrees of freedom"


def test_seeds_and_ends(target):
    told = []
    outputs = sample_continuations(target, PROMPTS * 40, Filters(2.0), 40, seed=3, progress=lambda *n: told.append(n))
    assert outputs == sample_continuations(target, PROMPTS * 40, Filters(2.0), 40, seed=3)
    assert outputs != sample_continuations(target, PROMPTS * 40, Filters(2.0), 40, seed=4)
    assert told[-1] == (80, 80) and told == sorted(told)  # two batches of 40 target steps
    ended = [o for o in outputs if len(o) < 40]
    assert ended and all(o[-1] == 0 and 0 not in o[:-1] for o in ended)
    assert all(0 not in o[:-1] for o in outputs if len(o) == 40)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_prompt(target, temperature):
    assert len(sample_continuations(target, [[0, 70]], Filters(temperature), 1, seed=0)[0]) == 1
