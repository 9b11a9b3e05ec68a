"""Figures against their definitions, one anchor at a time."""

import pytest
import torch

from specdec.drafting import BUCKETS, Calibration
from specdec.evaluation import measure as module
from specdec.evaluation.filters import Filters
from specdec.evaluation.measure import measure
from specdec.heads import load_head, unroll
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, load_documents

SETTINGS = [Filters(0.7), Filters(1.0, top_p=0.9), Filters(0)]


@pytest.fixture(scope="module")
def windows(folder, target):
    documents = [d.ids[1:].tolist()[:30] for d in load_documents(target.tokenizer, [folder / "text"])]
    return held_out_windows(TokenStream.pack(documents[:3], 0), 2, 24, 3)


@pytest.fixture(scope="module")
def heads(folder):
    return [load_head(folder / name) for name in ("near", "far")]


@torch.no_grad()
def test_figures_follow_their_definitions(target, near, windows):
    [found] = measure([near], target, windows, 2, SETTINGS, autocast=False)
    for filters, figures in zip(SETTINGS, found, strict=True):
        number = 0
        rows = zip(*(torch.cat([getattr(w, name) for w in windows]) for name in ("tokens", "documents")), strict=True)
        for row, (tokens, documents) in enumerate(rows):
            for j in range(24 - 3):
                if documents[j + 2] != documents[j]:
                    continue
                begin = int((documents == documents[j]).nonzero()[0])  # the document alone
                part = tokens[None, begin : j + 4]
                hidden = target.model.model(part).last_hidden_state
                place = j - begin
                outs = unroll(near, target.embed(part), hidden, 2, torch.arange(part.shape[1])[None])
                for k in (1, 2):
                    logits = target.logits(hidden[0, place + k])
                    p, q = filters.probabilities(logits), filters.probabilities(target.logits(outs[k - 1][0, place]))
                    token, at = tokens[j + k + 1], (number, k - 1)
                    assert figures.alpha[at] == pytest.approx(torch.minimum(p, q).sum().item(), abs=1e-5)
                    assert figures.greedy[at] == pytest.approx(p[q.argmax()].item(), abs=1e-5)
                    if p[token] > 0:
                        assert figures.kept[at] == pytest.approx(min(1.0, (q[token] / p[token]).item()), abs=1e-4)
                    assert figures.greedy_kept[at] == float(q.argmax() == token)
                    assert figures.entropy[at] == pytest.approx(-torch.xlogy(p, p).sum().item(), abs=1e-4)
                    one = logits.softmax(-1)
                    assert figures.entropy_at_1[at] == pytest.approx(-torch.xlogy(one, one).sum().item(), abs=1e-4)
                assert (figures.rows[number], figures.anchors[number]) == (row, j)
                assert figures.documents[number] == documents[j]
                number += 1
        assert number == len(figures) > 40


def test_heads_and_settings_share_a_pass_and_change_nothing(target, heads, windows, monkeypatch):
    """All at once as one by one; in small parts as in one; the target runs once a batch."""
    runs = []
    hidden = target.hidden
    monkeypatch.setattr(target, "hidden", lambda w: runs.append(w) or hidden(w))
    together = measure(heads, target, windows, 2, SETTINGS, autocast=False)
    assert len(runs) == len(windows)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 5 * 2 * target.weight.shape[0])
    for head, by_setting in zip(heads, together, strict=True):
        for setting, figures in zip(SETTINGS, by_setting, strict=True):
            [[alone]] = measure([head], target, windows, 2, [setting], autocast=False)
            torch.testing.assert_close(alone.alpha, figures.alpha, atol=1e-5, rtol=0)
            torch.testing.assert_close(alone.kept, figures.kept, atol=1e-4, rtol=0)
            assert torch.equal(alone.rows, figures.rows) and torch.equal(alone.documents, figures.documents)
    assert not torch.allclose(together[0][0].alpha, together[1][0].alpha)


def test_draft_scales_are_applied_to_the_draft_alone(target, near, windows):
    setting = Filters(0.5)
    sharp = Calibration((2.0,) * len(BUCKETS))
    [[scaled]] = measure([near], target, windows, 2, [setting], autocast=False, calibrations=[sharp])
    [[plain]] = measure([near], target, windows, 2, [setting], autocast=False)
    assert torch.equal(scaled.entropy, plain.entropy) and torch.equal(scaled.greedy_kept, plain.greedy_kept)
    assert not torch.allclose(scaled.alpha, plain.alpha)


def test_some_of_the_chains(target, near, windows):
    [[figures]] = measure([near], target, windows, 2, [Filters()], autocast=False)
    some = figures.only(figures.rows == 1)
    assert 0 < len(some) < len(figures) and set(some.rows.tolist()) == {1}
    assert torch.equal(some.alpha, figures.alpha[figures.rows == 1])


def test_windows_without_a_chain(target, near):
    short = TokenStream.pack([[5], [6], [7], [8]], 0)
    [[figures]] = measure([near], target, held_out_windows(short, 1, 8, 1), 3, [Filters()], autocast=False)
    assert len(figures) == 0 and figures.alpha.shape == (0, 3)
