"""What an SAE explains and what its features stand for, against cases worked by hand."""

import math
from pathlib import Path

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.steering import SAE
from specdec.steering.activations import ReLU
from specdec.steering.features import Feature, Peaks, Snippet, find_peaks, list_features, ordered
from specdec.steering.features_page import features_page
from specdec.steering.quality import measure
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, load_documents
from specdec.training.target import Target
from tests.helpers.tiny_models import make_target, write_text

WIDTH = 32


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Target:
    return Target(make_target(tmp_path_factory.mktemp("model")), torch.float32)


@pytest.fixture(scope="module")
def windows(target, tmp_path_factory):
    text = write_text(tmp_path_factory.mktemp("text"), 12)
    return held_out_windows(TokenStream.of(load_documents(target.tokenizer, [text])), 4, 32, 10)


def exact(layer: int) -> SAE:
    """x is the sum of its positive and its negative parts: nothing is lost."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    return SAE(both.T, torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH), ReLU(), "saelens", Path("exact"), layer=layer)


@pytest.mark.parametrize("layer", [0, 1])
def test_an_exact_sae_costs_nothing(target, windows, layer):
    quality = measure(exact(layer), target, windows)
    assert quality.tokens == sum(w.tokens.numel() for w in windows)
    assert quality.explained_variance == pytest.approx(1, abs=1e-6) and quality.l0 == pytest.approx(WIDTH)
    assert quality.dead == 0
    assert quality.spliced_cross_entropy == pytest.approx(quality.cross_entropy, abs=1e-5)
    labels = torch.cat([
        torch.nn.functional.cross_entropy(
            target.logits(target.hidden(w))[:, :-1][same], w.tokens[:, 1:][same], reduction="none"
        )
        for w in windows
        if (same := w.documents[:, 1:] == w.documents[:, :-1]).any()
    ])  # fmt: skip
    assert quality.cross_entropy == pytest.approx(labels.mean().item(), rel=1e-5)


def test_an_sae_that_makes_nothing(target, windows):
    """Zeros behind the last layer: the final norm gives zeros, so every token of 257 is as likely as another."""
    sae = exact(1)
    nothing = SAE(sae.W_enc, sae.b_enc - 1e6, sae.W_dec, sae.b_dec, ReLU(), "saelens", Path("none"), layer=1)
    quality = measure(nothing, target, windows)
    assert quality.spliced_cross_entropy == pytest.approx(math.log(257), rel=1e-5)
    assert (quality.l0, quality.dead) == (0, 1)
    x = torch.cat([target.hidden(w, 1).flatten(0, 1) for w in windows]).double()
    explained = 1 - x.square().sum() / (x - x.mean(0)).square().sum()
    assert quality.explained_variance == pytest.approx(explained.item(), rel=1e-6)
    half = measure(nothing, target, windows, cut=x.norm(dim=1).median().item())
    assert half.tokens == pytest.approx(len(x) / 2, abs=1)
    between = sorted((quality.cross_entropy, quality.spliced_cross_entropy))  # random weights guess worse than evenly
    assert between[0] < half.spliced_cross_entropy < between[1]


def test_peaks_by_hand():
    peaks = Peaks(2, 2, torch.device("cpu"))
    for window, f in enumerate(([[1.0, 0], [5, 0]], [[2, 0], [0, 0]], [[0, 7], [3, 0]])):
        peaks.add(torch.tensor(f), window)
    assert peaks.values.tolist() == [[5, 7], [3, 0]]  # one for each window: the 1 of the first is not the third
    assert peaks.windows[:, 0].tolist() == [0, 2] and peaks.places[:, 0].tolist() == [1, 1]
    assert (peaks.windows[0, 1], peaks.places[0, 1]) == (2, 0)
    assert peaks.active.tolist() == [4, 1] and peaks.tokens == 6


def test_features_say_where_they_are_active(target, windows):
    sae = exact(0)
    peaks = find_peaks(sae, target, windows, 3)
    features = list_features(sae, target, windows, peaks, [5, 40])
    x = torch.cat([target.hidden(w, 0) for w in windows])
    tokens = torch.cat([w.tokens for w in windows])
    for feature, values in ((features[0], x[..., 5]), (features[1], -x[..., 40 - WIDTH])):
        best = values.max(dim=1)
        strongest = best.values.topk(3)
        assert [s.activation for s in feature.snippets] == pytest.approx(strongest.values.tolist())
        marked = tokens[strongest.indices, best.indices[strongest.indices]]
        assert [s.token for s in feature.snippets] == [target.tokenizer.decode([t]) for t in marked]
        assert feature.density == pytest.approx((values > 0).float().mean().item())
        assert feature.highest == feature.snippets[0].activation
    direction = target.model.lm_head.weight @ (target.model.model.norm.weight * torch.eye(WIDTH)[5])
    assert features[0].promotes[0] == target.tokenizer.decode([int(direction.argmax())])


def test_a_snippet_stays_in_its_document(target):
    stream = TokenStream.pack([[66, 67, 68], [69, 70, 71, 72]], start=0)
    windows = [stream.windows(torch.tensor([0]), len(stream))]
    peaks = Peaks(1, 1, torch.device("cpu"))
    f = torch.zeros(len(stream), 1)
    f[6] = 1.0  # the second document's 70
    peaks.add(f, 0)
    zero = SAE(torch.zeros(WIDTH, 1), torch.zeros(1), torch.ones(1, WIDTH), torch.zeros(WIDTH), ReLU(), "", Path("a"))
    (snippet,) = list_features(zero, target, windows, peaks, [0])[0].snippets
    decode = target.tokenizer.decode
    assert (snippet.before, snippet.token, snippet.after) == (decode([0, 69]), decode([70]), decode([71, 72]))


def test_order_and_page():
    def feature(j: int, agreement: float, density: float, token: str = "x") -> Feature:
        return Feature(j, density, 2.5, [token], agreement, ["<b>"], [Snippet("a\n", token, "</td>", 2.5)])

    listed = [feature(1, 0.5, 0.3), feature(2, 1.0, 0.1), feature(3, 1.0, 0.2, "<i>"), feature(4, 0.2, 0.25)]
    orders = {"one-token": [3, 2, 1, 4], "many-tokens": [4, 1, 3, 2], "density": [1, 4, 3, 2], "highest": [1, 2, 3, 4]}
    for order, ids in orders.items():
        assert [f.id for f in ordered(listed, order)] == ids
    with pytest.raises(SpecdecError, match="--order 'size' is unknown: use one of density, highest"):
        ordered(listed, "size")
    html = features_page(exact(0), listed, 1000, "tiny")
    assert "<mark>&lt;i&gt;</mark>&lt;/td&gt;" in html and "a⏎" in html, "text of the data is never markup"
    assert "<script" not in html and "http" not in html, "nothing is loaded from elsewhere"
