"""Sampling parameters as distributions, and as text."""

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.evaluation.filters import Filters, parse_filters


def test_probabilities():
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    assert Filters(temperature=0).probabilities(logits).tolist() == [[[1, 0, 0, 0]]]
    kept = Filters(temperature=2.0, top_k=2).probabilities(logits)
    torch.testing.assert_close(kept[0, 0], torch.cat([torch.tensor([1.5, 1.0]).softmax(-1), torch.zeros(2)]))
    assert (Filters(min_p=0.3).probabilities(logits) > 0).sum() == 2  # e^-1 = 0.37 of the top stays, e^-2 goes
    assert (Filters(top_p=0.5).probabilities(logits) > 0).sum() == 1


@pytest.mark.parametrize(
    ("text", "filters", "again"),
    [
        ("T=0.6,top_p=0.95", Filters(0.6, top_p=0.95), "T=0.6,top_p=0.95"),
        (" temperature = 1, top-k = 50 ", Filters(1.0, top_k=50), "T=1,top_k=50"),
        ("min_p=0.1", Filters(min_p=0.1), "T=1,min_p=0.1"),
        ("T=0", Filters(0.0), "T=0"),
    ],
)
def test_text(text, filters, again):
    assert parse_filters(text) == filters and str(filters) == again
    assert parse_filters(str(filters)) == filters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.6", "'0.6' is not one of T, temperature, top_k, top_p, min_p with =NUMBER"),
        ("T=1,topp=0.9", "'topp=0.9' is not one of"),
        ("T=warm", "'warm' is no number for T"),
        ("top_k=2.5", "'2.5' is no number for top_k"),
        ("T=-1", "--setting 'T=-1': --temperature cannot be -1: give a number from 0"),
        ("T=nan", "--temperature cannot be nan"),
        ("top_p=0", "--top-p cannot be 0: give a number above 0"),
        ("min_p=2", "--min-p cannot be 2"),
        ("top_k=-1", "--top-k cannot be -1"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(SpecdecError) as caught:
        parse_filters(text)
    assert message in str(caught.value)
