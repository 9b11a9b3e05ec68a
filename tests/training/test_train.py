"""Whole runs of `specdec train` on tiny targets: learning, resuming, and every way to be asked for the impossible."""

import importlib.util
import json

import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from specdec.commands.train import train
from specdec.errors import SpecdecError
from specdec.heads import HeadConfig, MTPHead, load_head, save_head
from specdec.training.trainer import Trainer
from tests.helpers.tiny_models import FAMILIES, make_config, make_target, write_text

app = typer.Typer()
app.command()(train)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    for family in FAMILIES:
        make_target(path / family, family)
    write_text(path / "text")
    return path


def run(folder, output, *options, family="llama", loss="e2e-tv", steps=12, data="text"):
    arguments = [
        "--model",
        folder / family,
        "--data",
        folder / data,
        "--output",
        output,
        "--loss",
        loss,
        "--steps",
        steps,
    ]
    arguments += ["--batch-tokens", 256, "--seq-len", 32, "--dtype", "float32", "--eval-windows", 8, *options]
    return CliRunner().invoke(app, [str(a) for a in arguments])


def fails(result, text):
    assert result.exit_code != 0 and isinstance(result.exception, SpecdecError), result.output
    message = str(result.exception)
    assert text in message and "\n" not in message


@pytest.mark.parametrize("family", FAMILIES)
def test_learns(folder, tmp_path, family):
    """The head must come closer to the target than it began, on text that it was not trained on."""
    assert run(folder, tmp_path / "short", steps=1, family=family).exit_code == 0
    result = run(folder, tmp_path / "long", steps=60, family=family)
    assert result.exit_code == 0, result.output
    short, long = (json.loads((tmp_path / n / "training.json").read_text())["held_out"] for n in ("short", "long"))
    assert long["length"] > short["length"] + 0.05
    assert all(b > a for a, b in zip(short["alpha"], long["alpha"], strict=True))
    assert f"acceptance length {long['length']:.4f}" in result.output
    load_head(tmp_path / "long")


@pytest.mark.parametrize("loss", ["ce", "kl", "reverse-kl", "tv", "neg-log-alpha", "lk-hybrid"])
def test_every_loss_falls(folder, tmp_path, monkeypatch, loss):
    seen = []
    plain = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: seen.append(plain(self)) or seen[-1])
    assert run(folder, tmp_path / "head", loss=loss, steps=40).exit_code == 0
    losses = [loss for loss, _ in seen]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resumed_run_ends_where_an_uninterrupted_one_does(folder, tmp_path, monkeypatch, optimizer):
    options = ("--optimizer", optimizer, "--save-every", 0.000001)
    assert run(folder, tmp_path / "whole", *options).exit_code == 0
    plain = Trainer.step

    def killed(self):
        if self.step_number == 7:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Trainer, "step", killed)
    assert run(folder, tmp_path / "parts", *options).exit_code != 0
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    monkeypatch.setattr(Trainer, "step", plain)
    resumed = run(folder, tmp_path / "parts", *options, "--resume")
    assert resumed.exit_code == 0 and "going on from step 7" in resumed.output
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_resume_refuses_finished_foreign_and_absent_runs(folder, tmp_path):
    fails(run(folder, tmp_path / "new", "--resume"), "no run to resume")
    assert run(folder, tmp_path / "head", steps=1).exit_code == 0
    fails(run(folder, tmp_path / "head", "--resume", steps=1), "is finished (1 steps)")
    fails(run(folder, tmp_path / "head", steps=1), "already holds a training run")
    state = torch.load(tmp_path / "head" / "training_state.pt", weights_only=True)
    torch.save({**state, "finished": False}, tmp_path / "head" / "training_state.pt")
    fails(run(folder, tmp_path / "head", "--resume", steps=2), "--steps 1, not 2")
    (tmp_path / "head" / "training_state.pt").write_bytes(b"PK")
    fails(run(folder, tmp_path / "head", "--resume"), "is damaged")


def test_bfloat16_and_warm_start(folder, tmp_path):
    first = run(folder, tmp_path / "first", "--init", "random", "--dtype", "bfloat16", "--schedule", "cosine", steps=3)
    assert first.exit_code == 0, first.output
    second = run(
        folder,
        tmp_path / "second",
        "--loss",
        "ce",
        "--labels",
        "target",
        "--init-from",
        tmp_path / "first",
        "--schedule",
        "constant",
        steps=1,
    )
    assert second.exit_code == 0, second.output
    fails(run(folder, tmp_path / "third", "--init-from", tmp_path / "first", family="qwen3"), "its family is llama")


def test_budget_in_minutes(folder, tmp_path):
    assert run(folder, tmp_path / "head", "--minutes", 0.01, steps=100_000).exit_code == 0
    assert 0 < json.loads((tmp_path / "head" / "training.json").read_text())["minutes"] < 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--weighting", "p"], "--weighting 'p' is unknown: use one of one-minus-p"),
        (["--loss", "mse"], "--loss 'mse' is unknown: use one of ce, kl"),
        (["--labels", "guess"], "--labels 'guess' is unknown: use one of text, target"),
        (["--optimizer", "sgd"], "--optimizer 'sgd' is unknown"),
        (["--steps", 0], "--steps must be above 0"),
        (["--minutes", -1], "--minutes must be above 0"),
        (["--lr", 0], "--lr must be above 0"),
        (["--seq-len", 4], "--seq-len 4 is too short"),
        (["--batch-tokens", 8], "--batch-tokens 8 is less than --seq-len 32"),
        (["--accumulate", 0], "--accumulate must be above 0"),
        (["--seed", -1], "--seed must be 0 or above"),
        (["--warmup", 1.5], "--warmup 1.5"),
        (["--init-from", "/nowhere"], "there is no head at /nowhere"),
        (["--eval-data", "/nowhere"], "there is no data at /nowhere"),
        (["--model", "/nowhere"], "there is no model at /nowhere"),
        (["--device", "tpu"], "--device 'tpu'"),
    ],
)
def test_impossible_options(folder, tmp_path, options, text):
    fails(run(folder, tmp_path / "head", *options), text)
    assert not (tmp_path / "head" / "config.json").exists()


def test_bad_data_and_outputs(folder, tmp_path, monkeypatch):
    (folder / "empty").mkdir(exist_ok=True)
    fails(run(folder, tmp_path / "head", data="empty"), "holds no text")
    monkeypatch.setattr("specdec.training.target.Target.__init__", None)  # all this before the model is read
    (tmp_path / "file").write_text("")
    fails(run(folder, tmp_path / "file"), "cannot write to")
    fails(run(folder, tmp_path / "file" / "below"), "cannot write to")
    fails(run(folder, "/proc/head"), "cannot write to /proc/head")
    fails(run(folder, tmp_path / "head", "--seq-len", 256, "--batch-tokens", 256), "at most 128 positions")
    save_head(MTPHead(HeadConfig.for_target(make_config(hidden_size=16, head_dim=4))), tmp_path / "narrow")
    fails(run(folder, tmp_path / "head", "--init-from", tmp_path / "narrow"), "its hidden size is 16, the target's is")


def test_missing_packages(folder, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    for absent, text in (
        ({"tensorboard"}, "or give --no-tensorboard"),
        ({"accelerate", "tensorboard"}, "accelerate and"),
    ):
        present = {name: found(name) for name in ("transformers", "accelerate", "tensorboard") if name not in absent}
        monkeypatch.setattr(importlib.util, "find_spec", present.get)
        fails(run(folder, tmp_path / "head"), text)


def test_a_broken_model_folder(folder, tmp_path):
    target = make_target(tmp_path / "model")
    (target / "model.safetensors").write_bytes(b"cut")
    fails(run(tmp_path, tmp_path / "head", "--data", folder / "text", family="model", data="."), "cannot be loaded")
