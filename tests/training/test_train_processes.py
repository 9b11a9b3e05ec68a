"""Runs in real processes: started by accelerate, killed by SIGKILL, resumed, with the head in copies or in shards.

float32 with AdamW: Muon orthogonalises in bfloat16, which turns the last bit of a sum into percents of its update.
"""

import json
import shutil
import subprocess
import sys
from signal import SIGKILL

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.launch import Run
from tests.helpers.tiny_models import make_target, write_text

STEPS, KILLED = 12, 5
ROUNDING = {"rtol": 0, "atol": 2e-6}  # of weights that have moved by 0.03: 4e-8 to 1e-7 seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    make_target(path / "model")
    write_text(path / "text")
    return path


def command(folder, output, *options, steps=STEPS):
    """9 windows a batch: two processes have unequal shares."""
    arguments = ["train", "--model", folder / "model", "--data", folder / "text", "--output", output, "--steps", steps]
    arguments += ["--batch-tokens", 9 * 32, "--seq-len", 32, "--dtype", "float32", "--optimizer", "adamw"]
    return [*arguments, "--eval-windows", 8, *options]


@pytest.fixture(scope="module")
def one(folder):
    """One process, uninterrupted."""
    Run([command(folder, folder / "one")], folder / "one.log").finish()
    return weights(folder / "one")


@pytest.fixture(scope="module")
def two(folder):
    """Two processes as users start them, uninterrupted."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += [
        "--main_process_port=0",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "-m",
        "specdec",
    ]
    arguments = [str(a) for a in command(folder, folder / "two", "--no-tensorboard")]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("acceptance length") == 1 and "9 windows of 32; 2 processes on cpu, copies" in done.stdout
    return weights(folder / "two")


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b, **tolerance):
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], **(tolerance or {"rtol": 0, "atol": 0})) for n in a)


def killed(folder, name, processes, *options, sharded=False):
    """A run killed when it writes its KILLED-th state: the one before is whole. Processes after the first are given a
    folder of their own, where they must not write."""
    outputs = [folder / name, *(folder / f"{name}-{rank}" for rank in range(1, processes))]
    commands = [command(folder, output, "--save-every", 1e-9, *options) for output in outputs]
    codes = Run(commands, folder / f"{name}.log", sharded, killed_at_save=KILLED).exit_codes()
    assert codes[0] == -SIGKILL and all(code not in (0, None) for code in codes[1:])
    assert not any(list(output.iterdir()) for output in outputs[1:])
    state = torch.load(folder / name / "training_state.pt", weights_only=True)
    assert state["step"] == KILLED - 1 and not (folder / name / "model.safetensors").exists()
    return folder / name


def resumed(folder, output, processes, sharded=False):
    run = Run([command(folder, output, "--resume")] * processes, output.with_suffix(".log"), sharded)
    assert f"going on from step {KILLED - 1}" in run.finish()
    return weights(output)


def test_two_processes_train_what_one_does(folder, one, two):
    assert same(one, two, **ROUNDING)
    reports = [json.loads((folder / name / "training.json").read_text()) for name in ("one", "two")]
    assert (folder / "one" / "logs").is_dir() and not (folder / "two" / "logs").exists()  # --no-tensorboard
    assert [report["processes"] for report in reports] == [1, 2] and reports[0]["tokens"] == reports[1]["tokens"]
    assert reports[1]["held_out"]["length"] == pytest.approx(reports[0]["held_out"]["length"], abs=1e-5)


def test_killed_and_resumed_is_uninterrupted(folder, one, two):
    """Bit for bit with as many processes; with others, from copies to shards and back, from kept states of the target
    (which the first process makes), up to rounding."""
    assert same(resumed(folder, killed(folder, "killed-one", 1), 1), one)
    pair = killed(folder, "killed-two", 2)
    copy = shutil.copytree(pair, folder / "copy")
    assert same(resumed(folder, pair, 2), two)
    assert same(resumed(folder, copy, 2, sharded=True), one, **ROUNDING)
    shards = killed(folder, "killed-shards", 2, "--cache-hidden", folder / "states", sharded=True)
    assert same(resumed(folder, shards, 1), one, **ROUNDING) and (folder / "states" / "index.json").exists()


def test_a_budget_in_minutes_ends_for_all_at_once(folder):
    """The first process's clock counts; the other's is ten times as fast, and on its own would stop ten times as early.
    A process that waits for one that has stopped would hang."""
    options = ("--minutes", 0.01, "--save-every", 0.002, "--eval-every", 7)
    commands = [command(folder, folder / name, *options, steps=100_000) for name in ("clock", "clock-1")]
    Run(commands, folder / "clock.log", fast_clocks=True).finish()
    assert 0.01 <= json.loads((folder / "clock" / "training.json").read_text())["minutes"] < 0.1
