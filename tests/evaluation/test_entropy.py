"""The line, its interval over documents, and the comparison of two heads, on points with a known law."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from specdec.evaluation.entropy import CURVES, Curve, Fit, fit, slope_difference
from specdec.evaluation.measure import Figures

LENGTH = Curve("rejection", "length", "temperature_1")
ONE = Curve("rejection", "acceptance", "setting")


def figures(alpha, entropy, documents, greedy=None, entropy_at_1=None):
    """Of n chains: values [n, K] and documents [n]."""
    alpha, entropy = torch.as_tensor(alpha).float(), torch.as_tensor(entropy).float()
    greedy = alpha / 2 if greedy is None else greedy
    n = torch.arange(len(alpha))
    at_1 = entropy + 1 if entropy_at_1 is None else entropy_at_1
    return Figures(alpha, greedy, alpha, greedy, entropy, at_1, n, n, torch.as_tensor(documents))


@pytest.fixture
def sample():
    """300 documents of 10 chains; the documents differ in slope and level, which makes their chains alike."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(300), 10)
    entropy = rng.uniform(0, 3, (3000, 2))
    level = rng.normal(0, 0.05, 300)[documents, None]
    slope = rng.normal(-0.1, 0.06, 300)[documents, None]
    return figures((0.7 + level + slope * (entropy - 1.5)).clip(0, 1), entropy, documents)


def test_the_line_is_least_squares(sample):
    x, y = sample.entropy.double().numpy().ravel(), sample.alpha.double().numpy().ravel()
    slope, intercept = np.polyfit(x, y, 1)
    found = fit(sample, ONE)
    assert (found.slope, found.intercept) == (pytest.approx(slope, abs=1e-7), pytest.approx(intercept, abs=1e-6))
    assert found.documents == 300
    assert [b["count"] for b in found.bins] == [600] * 10
    lowest = np.argsort(x)[:600]
    assert found.bins[0]["entropy"] == pytest.approx(x[lowest].mean())
    assert found.bins[0]["value"] == pytest.approx(y[lowest].mean())
    assert Fit.of({**ONE._asdict(), **asdict(found)}) == found  # a report has them side by side
    assert found.at(np.array([1.0]))[0] == pytest.approx(slope + intercept, abs=1e-6)


def test_each_curve_takes_its_own_values(sample):
    """Slopes of all eight, from plain numpy."""
    for curve in CURVES:
        alpha = (sample.alpha if curve.verify == "rejection" else sample.greedy).double().numpy()
        entropy = (sample.entropy if curve.entropy == "setting" else sample.entropy_at_1).double().numpy()
        x, y = entropy.ravel(), alpha.ravel()
        if curve.of == "length":
            x, y = entropy.mean(1), 1 + alpha[:, 0] + alpha[:, 0] * alpha[:, 1]
        assert fit(sample, curve).slope == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)


def test_the_interval_is_that_of_documents_not_of_chains(sample):
    """Against the law of the slope when documents are drawn anew; chains taken for independent would give less than
    half of it."""
    found = fit(sample, ONE)
    rng, slopes = np.random.default_rng(1), []
    for _ in range(300):
        x = rng.uniform(0, 3, (300, 20))
        y = rng.normal(0, 0.05, (300, 1)) + rng.normal(-0.1, 0.06, (300, 1)) * (x - 1.5)
        slopes.append(np.polyfit(x.ravel(), y.ravel(), 1)[0])
    width = found.high - found.low
    assert width == pytest.approx(2 * 1.96 * np.std(slopes), rel=0.15)
    assert found.low < -0.1 < found.high
    apart = figures(sample.alpha, sample.entropy, np.arange(3000))
    independent = fit(apart, ONE)
    assert independent.high - independent.low < 0.6 * width


def test_two_heads_are_compared_on_the_same_documents(sample):
    """What the documents do to both leaves the difference: its interval is far narrower than either slope's."""
    flatter = figures(sample.alpha + 0.02 * sample.entropy, sample.entropy, sample.documents)
    found = slope_difference(flatter, sample, ONE)
    assert found["difference"] == pytest.approx(0.02, abs=1e-5)
    assert found["low"] == pytest.approx(0.02, abs=1e-5) and found["high"] == pytest.approx(0.02, abs=1e-5)
    assert (found["verify"], found["of"], found["entropy"]) == ONE
    assert slope_difference(sample, sample, LENGTH)["difference"] == 0


def test_no_line_and_no_interval():
    one_document = fit(figures([[0.5], [0.6]], [[1.0], [2.0]], [3, 3]), LENGTH)
    assert one_document.slope == pytest.approx(0.1) and one_document.low is None and one_document.high is None
    all_equal = fit(figures([[0.5], [0.6]], [[0.0], [0.0]], [0, 1]), ONE)
    assert (all_equal.slope, all_equal.low, all_equal.high) == (None, None, None)
    assert len(all_equal.bins) == 2
