"""The trainer's loss: fused and eager alike, weights of noisy demonstrations, settings of runs from before them."""

from pathlib import Path

import pytest
import torch

from specdec.evaluation import measure
from specdec.evaluation.acceptance import measure_acceptance
from specdec.heads.config import HeadConfig
from specdec.heads.module import MTPHead, init_random
from specdec.training import objective
from specdec.training.batches import held_out_windows
from specdec.training.chain import chain_anchors, run_chains, run_states
from specdec.training.data import load_streams
from specdec.training.draws import Draws
from specdec.training.fused import FUSED
from specdec.training.losses import STEP_LOSSES
from specdec.training.objective import Objective
from specdec.training.serving_mix import UNDER_FILTERS
from specdec.training.settings import Settings
from specdec.training.target import Target
from tests.helpers.tiny_models import make_target, write_text

STEPS = 3


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return Target(make_target(tmp_path_factory.mktemp("target")), torch.float32)


@pytest.fixture(scope="module")
def windows(target, tmp_path_factory):
    _, held_out = load_streams(target.tokenizer, [write_text(tmp_path_factory.mktemp("text"))], [])
    return held_out_windows(held_out, 4, 24, 4)


@pytest.fixture(scope="module")
def head(target):
    head = MTPHead(HeadConfig.for_target(target.config))
    init_random(head, std=0.3, generator=torch.Generator().manual_seed(0))
    return head


def settings(**changes):
    return Settings(model=Path("m"), data=[Path("d")], output=Path("o"), dtype="float32", **changes)


def loss_and_gradient(target, windows, head, fused, **changes):
    """Of one batch; the objective must have chosen as `fused` says."""
    chosen = Objective(settings(**changes), target)
    assert chosen.fused == fused
    states = run_states(head, target, windows[0], target.hidden(windows[0]), STEPS, False, chosen.labelled)
    draws = Draws(0, torch.arange(4), chain_anchors(windows[0], STEPS, chosen.labelled))
    per_chain, alphas = chosen(states, draws, False)
    head.zero_grad()
    per_chain.mean().backward()
    return per_chain.detach(), alphas, [p.grad.clone() for p in head.parameters()]


MIX = {"temperatures": (0.3, 1.3)}
FILTERED = {**MIX, "top_p": 0.8, "top_k": 40, "min_p": 0.02, "filtered": 0.5}
ONE = {"temperature": 0.8}


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        *((loss, {**ONE, "weighting": weighting}) for loss in FUSED for weighting in (None, "one-minus-p")),
        *((loss, MIX) for loss in FUSED),
        *((loss, {**FILTERED, "kl_weight": 0.3}) for loss in UNDER_FILTERS),
    ],
)
def test_fused_is_eager_in_less_memory(target, windows, head, monkeypatch, loss, options):
    options = {**options, "loss": loss}
    eager, some_alphas, eager_slopes = loss_and_gradient(target, windows, head, False, **options)
    monkeypatch.setattr(objective, "FUSED_FROM", 100)
    fused, alphas, slopes = loss_and_gradient(target, windows, head, True, **options)
    torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slopes, eager_slopes, rtol=1e-3, atol=1e-5)
    assert len(alphas) == STEPS and alphas == pytest.approx(some_alphas, abs=0.1)  # eager looks at every eighth chain


def test_losses_without_a_fused_form_stay_eager(target, windows, head, monkeypatch):
    monkeypatch.setattr(objective, "FUSED_FROM", 100)
    for loss in STEP_LOSSES.keys() - FUSED.keys():
        loss_and_gradient(target, windows, head, False, loss=loss)


def test_a_target_with_a_bias_stays_eager(target, monkeypatch):
    monkeypatch.setattr(objective, "FUSED_FROM", 100)
    assert Objective(settings(), target).fused
    target.model.lm_head.bias = torch.nn.Parameter(torch.zeros(target.weight.shape[0]))
    try:
        assert not Objective(settings(), target).fused
    finally:
        target.model.lm_head.bias = None


def test_weights_are_of_the_texts_own_tokens(target, windows, head, monkeypatch):
    """By hand from the target's logits, at temperature 1 whatever the loss's; in several blocks."""
    monkeypatch.setattr(objective, "WEIGHT_ROWS", 5)
    hidden = target.hidden(windows[0])
    per_chain = {
        weighting: loss_and_gradient(
            target, windows, head, False, loss="ce", weighting=weighting, temperature=0.5
        )[0]
        for weighting in (None, "one-minus-p")
    }  # fmt: skip
    chains = run_chains(head, target, windows[0], hidden, STEPS, False, labelled=True)
    p = chains.target_logits.softmax(-1).gather(-1, chains.labels[..., None]).squeeze(-1)
    log_q = (chains.draft_logits / 0.5).log_softmax(-1).gather(-1, chains.labels[..., None]).squeeze(-1)
    torch.testing.assert_close(per_chain["one-minus-p"], ((1 - p) * -log_q).mean(-1))
    torch.testing.assert_close(per_chain[None], -log_q.mean(-1))


def test_evaluation_in_parts(target, windows, head, monkeypatch):
    whole = measure_acceptance(head, target, windows, STEPS, autocast=False)
    monkeypatch.setattr(measure, "LOGITS_AT_ONCE", 7 * STEPS * target.weight.shape[0])
    parts = measure_acceptance(head, target, windows, STEPS, autocast=False)
    assert parts.anchors == whole.anchors and parts.alpha == pytest.approx(whole.alpha, rel=1e-6)


def test_runs_from_before_the_weighting_go_on():
    saved = settings().as_dict()
    del saved["weighting"]
    settings().check_same_run(saved)
    with pytest.raises(ValueError, match="--weighting"):
        settings(weighting="one-minus-p").check_same_run(saved)
