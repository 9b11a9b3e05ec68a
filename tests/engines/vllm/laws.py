"""What the tests of losslessness compare: the law of what an engine emits, by a chi-square test of homogeneity.

Requests emit TOKENS tokens. The first comes from the prefill, so tokens 2 to 4 are drafts 1 to 3 of the first verify
step (or what replaced them) and the fifth its bonus token. Compared is the joint law of tokens 1 to 5, and with it that
of tokens 2 to 4 and of the next one given them: two samples, one from an engine without speculation, at a level that
over all comparisons of the tests gives a false alarm once in 10,000 runs.
"""

from collections import Counter

import torch

from specdec.conformance.statistics import two_sample
from tests.engines.vllm.engine import Outcome

TOKENS = 6
LEVEL = 1e-4 / 64
# Few cells, so that each expects enough counts: a top-k of 3 leaves 3^4 sequences of tokens 2-5 behind one first token.
SETTINGS = [
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 4},
]
PROMPTS = 4
METHODS = ("token", "block")


def jobs(prompts: list[list[int]], repeat: int, max_tokens: int = TOKENS, length: int = 8) -> list[dict]:
    """One job for each prompt (its first `length` tokens) and setting; all of them share the engine's batches."""
    return [
        {
            "prompts": [ids[:length]],
            "repeat": repeat,
            "params": {**settings, "max_tokens": max_tokens, "ignore_eos": True},
        }
        for ids in prompts[:PROMPTS]
        for settings in SETTINGS
    ]


def p_values(outcome: Outcome, baseline: Outcome) -> list[float]:
    """One p-value per job (prompt and setting): tokens 1-5 jointly."""
    return [_p_value(outcome.tokens(job), baseline.tokens(job)) for job in range(len(baseline.results))]


def _p_value(first: list[list[int]], second: list[list[int]]) -> float:
    a, b = (Counter(tuple(tokens[:5]) for tokens in sample) for sample in (first, second))
    cells = sorted(a.keys() | b.keys())
    return two_sample(*(torch.tensor([counts[cell] for cell in cells]) for counts in (a, b))).p_value
