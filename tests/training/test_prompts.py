import numpy as np
import pytest

from specdec.errors import SpecdecError
from specdec.training.prompts import cut_prompts

DOCUMENTS = [list(range(100, 110)), [1, 2], list(range(200, 240))]


def test_prompts_are_stretches_of_one_document_behind_the_start_token():
    for prompt in cut_prompts(DOCUMENTS, 200, 8, seed=0, start=0):
        assert prompt[0] == 0 and len(prompt) == 8
        first = prompt[1]
        assert prompt[1:] == list(range(first, first + 7)) and prompt[-1] in (*DOCUMENTS[0], *DOCUMENTS[2])


def test_every_place_is_equally_likely():
    """4 places in one document, 34 in the other: 38 cells, chi-square below its mean by more than 6 deviations."""
    starts = [p[1] for p in cut_prompts(DOCUMENTS, 38_000, 8, seed=1, start=0)]
    counts = np.unique_counts(starts).counts
    assert len(counts) == 38
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert chi2 < 37 + 6 * (2 * 37) ** 0.5


def test_fixed_by_the_seed_and_a_prefix_of_more():
    few, more, other = (cut_prompts(DOCUMENTS, n, 5, seed, 0) for n, seed in ((10, 3), (20, 3), (10, 4)))
    assert few == more[:10] != other


def test_no_document_is_long_enough():
    with pytest.raises(SpecdecError, match=r"none of the 3 documents has 63 tokens"):
        cut_prompts(DOCUMENTS, 1, 64, 0, 0)
