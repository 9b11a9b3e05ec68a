import pytest
import torch

from specdec.conformance.statistics import chi_square, two_sample


def test_known_value():
    # (10-15)²/15 + (20-15)²/15 = 10/3 with one degree of freedom: p = erfc(sqrt(10/6)) = 0.0679
    result = chi_square(torch.tensor([10, 20]), torch.tensor([0.5, 0.5]))
    assert result.statistic == pytest.approx(10 / 3)
    assert result.degrees == 1
    assert result.p_value == pytest.approx(0.06788915, rel=1e-6)


def test_impossible_cell_is_fatal():
    assert chi_square(torch.tensor([99, 1]), torch.tensor([1.0, 0.0])).p_value == 0


def test_small_cells_are_pooled():
    p = torch.tensor([0.9, *[0.001] * 100])
    assert chi_square(torch.tensor([900, *[1] * 100]), p).degrees == 1


def test_two_samples():
    assert two_sample(torch.tensor([500, 500]), torch.tensor([1000, 1000])).p_value == pytest.approx(1)
    assert two_sample(torch.tensor([500, 500]), torch.tensor([1200, 800])).p_value < 1e-6
