"""Chains trained for the temperatures and filters that requests ask for."""

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from specdec.commands.train import train
from specdec.drafting import CALIBRATION
from specdec.errors import SpecdecError
from specdec.evaluation.filters import Filters
from specdec.heads.config import HeadConfig
from specdec.heads.module import MTPHead, init_random
from specdec.training.batches import held_out_windows
from specdec.training.chain import chain_anchors, run_states
from specdec.training.data import load_streams
from specdec.training.draws import Draws
from specdec.training.losses import kl
from specdec.training.objective import Objective
from specdec.training.robust import ROBUST
from specdec.training.serving_mix import ServingMix
from specdec.training.settings import Settings
from specdec.training.target import Target
from tests.helpers.tiny_models import make_target, write_text

CPU = torch.device("cpu")
app = typer.Typer()
app.command()(train)


def settings(**changes) -> Settings:
    return Settings(model=Path("m"), data=[Path("d")], output=Path("o"), dtype="float32", **changes)


def draws(windows: int, anchors: int, first: int = 0) -> Draws:
    return Draws(3, torch.arange(first, first + windows), torch.ones(windows, anchors, dtype=torch.bool))


def test_what_is_drawn():
    """Log-uniform temperatures, filters in their share, alike within a chain, and the same again."""
    mix = ServingMix((0.3, 1.2), top_p=0.9, min_p=0.1, filtered=0.25)
    drawn = mix.draw(draws(80, 50), 3, CPU)
    by_chain = drawn.temperature.view(-1, 3)
    assert by_chain.shape == (4000, 3) and (by_chain == by_chain[:, :1]).all()
    assert 0.3 <= by_chain.min() < 0.31 and 1.18 < by_chain.max() <= 1.2
    # Half lie below the geometric mean, 0.6; 4000 chains: five deviations are 0.04.
    assert ((by_chain[:, 0] < 0.6).float().mean() - 0.5).abs() < 0.04
    under = drawn.top_p < 1
    assert (under.float().mean() - 0.25).abs() < 0.04
    assert ((drawn.min_p > 0) == under).all() and (drawn.top_k == 0).all()
    assert (drawn.temperature[under].log().mean() - drawn.temperature[~under].log().mean()).abs() < 0.1
    later = mix.draw(draws(40, 50, first=40), 3, CPU)  # the second half of the batch, in a process of its own
    assert torch.equal(later.temperature, drawn.temperature[6000:]) and torch.equal(later.top_p, drawn.top_p[6000:])


@torch.no_grad()
def test_a_chain_loses_what_serving_would_reject(tmp_path):
    """By evaluation's own p and q, chain by chain; each chain's loss times its temperature, and KL at 1 beside it."""
    target = Target(make_target(tmp_path / "target"), torch.float32)
    text = tmp_path / "text"
    text.mkdir()
    _, held_out = load_streams(target.tokenizer, [write_text(text)], [])
    windows = held_out_windows(held_out, 2, 24, 2)[0]
    head = MTPHead(HeadConfig.for_target(target.config))
    init_random(head, std=0.3, generator=torch.Generator().manual_seed(0))
    chosen = settings(temperatures=(0.3, 1.3), top_p=0.8, filtered=0.5, kl_weight=0.4)
    states = run_states(head, target, windows, target.hidden(windows), 3, False)
    random = Draws(0, torch.arange(2), chain_anchors(windows, 3))
    losses, _ = Objective(chosen, target)(states, random, False)
    assert chosen.serving_mix is not None
    asked = chosen.serving_mix.draw(random, 3, CPU)
    chains, filtered = states.logits(target, False), 0
    for i, loss in enumerate(losses):
        filters = Filters(float(asked.temperature[3 * i]), top_p=float(asked.top_p[3 * i]))
        filtered += filters.top_p < 1
        p, q = (filters.probabilities(side[i]) for side in (chains.target_logits, chains.draft_logits))
        lengths = torch.minimum(p, q).sum(-1).cumprod(-1)
        expected = (
            filters.temperature * (1 - lengths.mean())
            + 0.4 * kl(chains.draft_logits[i], chains.target_logits[i]).mean()
        )
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    assert 0.2 * len(losses) < filtered < 0.8 * len(losses)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperatures": (0.0, 1.0)}, "--temperatures 0 1 is no range"),
        ({"temperatures": (1.0, 0.5)}, "--temperatures 1 0.5 is no range"),
        ({"top_p": 0.0}, "--top-p cannot be 0"),
        ({"top_k": -1}, "--top-k cannot be -1"),
        ({"min_p": 1.5}, "--min-p cannot be 1.5"),
        ({"top_p": 0.9, "filtered": 2.0}, "--filtered 2 is no share"),
        ({"kl_weight": -1.0}, "--kl-weight must be 0 (off) or above, not -1"),
        ({"top_p": 0.9, "loss": "kl"}, "--loss kl is infinite where a filter"),
    ],
)
def test_impossible_mixes(options, text):
    with pytest.raises(SpecdecError) as error:
        settings(**options)
    assert text in str(error.value)


def test_without_a_range_or_a_filter_there_is_no_mix():
    assert settings(temperature=0.7).serving_mix is None
    mix = settings(temperature=0.7, top_k=5).serving_mix
    assert mix == ServingMix((0.7, 0.7), top_k=5, filtered=0.25)


def test_robust_training_from_the_command_line(tmp_path):
    """Its settings are those of ROBUST, and the head comes with its draft scales."""
    folder = make_target(tmp_path / "target")
    (tmp_path / "text").mkdir()
    options = ["--model", folder, "--data", write_text(tmp_path / "text"), "--output", tmp_path / "head", "--robust"]
    options += ["--steps", 2, "--batch-tokens", 256, "--seq-len", 32, "--eval-windows", 4, "--no-tensorboard"]
    result = CliRunner().invoke(app, [str(o) for o in options])
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "head" / "training.json").read_text())["settings"]
    assert {name: saved[name] for name in ROBUST} == ROBUST | {"temperatures": list(ROBUST["temperatures"])}
    assert (tmp_path / "head" / CALIBRATION).is_file()
