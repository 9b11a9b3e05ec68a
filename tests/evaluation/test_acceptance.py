"""Held-out figures against their definitions."""

import pytest
import torch

from specdec.drafting import BUCKETS, Bucket, Calibration
from specdec.evaluation.acceptance import Filters, measure_acceptance
from specdec.heads import load_head, unroll
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, load_documents


@torch.no_grad()
def test_figures_follow_their_definitions(folder, target, near):
    """One document, one window, one anchor at a time with plain loops, at a temperature other than 1."""
    ids = load_documents(target.tokenizer, [folder / "text"])[0].ids[1:].tolist()
    windows = held_out_windows(TokenStream.pack([ids], 0), 1, 20, 1)
    got = measure_acceptance(near, target, windows, 2, Filters(temperature=0.7), autocast=False)

    hidden = target.model.model(windows[0].tokens).last_hidden_state
    outs = unroll(near, target.embed(windows[0].tokens), hidden, 2, torch.arange(20)[None])
    alphas, greedy = [], []
    for j in range(20 - 2 - 1):
        p = [(target.logits(hidden[0, j + k]) / 0.7).softmax(-1) for k in (1, 2)]
        q = [(target.logits(outs[k - 1][0, j]) / 0.7).softmax(-1) for k in (1, 2)]
        alphas.append([torch.minimum(a, b).sum().item() for a, b in zip(p, q, strict=True)])
        greedy.append([a[b.argmax()].item() for a, b in zip(p, q, strict=True)])
    alphas, greedy = torch.tensor(alphas), torch.tensor(greedy)
    assert got.anchors == len(alphas)
    assert got.alpha == pytest.approx(alphas.mean(0).tolist(), abs=1e-5)
    assert got.length == pytest.approx(1 + alphas.cumprod(-1).mean(0).sum().item(), abs=1e-5)
    assert got.greedy_alpha == pytest.approx(greedy.mean(0).tolist(), abs=1e-5)
    assert got.greedy_length == pytest.approx(1 + greedy.cumprod(-1).mean(0).sum().item(), abs=1e-5)


def test_drafts_are_drawn_at_the_heads_draft_scales(folder, target):
    """As from a head whose logits are that much smaller; greedy drafts do not change."""
    windows = held_out_windows(TokenStream.of(load_documents(target.tokenizer, [folder / "text"])), 2, 20, 2)
    head, smaller = load_head(folder / "near"), load_head(folder / "near")
    with torch.no_grad():
        smaller.norm.weight.mul_(0.7)
    scales = Calibration(tuple(0.7 if b == Bucket(0.6, True) else 1.3 for b in BUCKETS))
    filters = Filters(0.65, top_p=0.9)
    got = measure_acceptance(head, target, windows, 2, filters, autocast=False, calibration=scales)
    # Not the whole chain: the smaller head's own states go on as the next step's input.
    assert got.alpha[0] == pytest.approx(
        measure_acceptance(smaller, target, windows, 2, filters, False).alpha[0], abs=1e-5
    )
    plain = measure_acceptance(head, target, windows, 2, filters, False)
    assert got.greedy_alpha == pytest.approx(plain.greedy_alpha) and got.alpha != pytest.approx(plain.alpha, abs=1e-3)
