"""Draft scales measured on held-out text, for the shipped head."""

import shutil

import pytest
import torch
from typer.testing import CliRunner

from specdec.commands.head import app
from specdec.drafting import BUCKETS, load_calibration, overlap
from specdec.drafting.running import STEP
from specdec.heads import load_head
from specdec.sampling import SamplingBatch
from specdec.training.batches import held_out_windows
from specdec.training.calibrate import WORTH, calibrate
from specdec.training.chain import run_chains
from specdec.training.data import TokenStream
from specdec.training.target import Target
from tests.engines.vllm.engine import HEAD, MODEL

STEPS = 2


@pytest.fixture(scope="module")
def target():
    return Target(MODEL, torch.float32)


@pytest.fixture(scope="module")
def windows(target):
    text = (MODEL.parent / "corpus.py").read_text() + (MODEL.parent / "make.py").read_text()
    return held_out_windows(TokenStream.pack([target.tokenizer(text)["input_ids"]], 0), 4, 64, 4)


@pytest.fixture(scope="module")
def sharp(target, windows):
    return calibrate(head_of(1.5), target, windows, STEPS, autocast=False)


def head_of(sharpness: float):
    """The shipped head with its logits times `sharpness`."""
    head = load_head(HEAD)
    with torch.no_grad():
        head.norm.weight.mul_(sharpness)
    return head


def test_no_scale_nearby_is_better(target, windows, sharp):
    chains = [run_chains(head_of(1.5), target, w, target.hidden(w), STEPS, False) for w in windows]
    p, q = (torch.cat([getattr(c, side) for c in chains]) for side in ("target_logits", "draft_logits"))
    for bucket, scale in zip(BUCKETS, sharp.scales, strict=True):
        rows = SamplingBatch.uniform(
            len(p) * STEPS, bucket.temperature, top_p=0.95 if bucket.filtered else 1.0, seed=0
        )  # fmt: skip
        here, *others = (
            overlap(p.flatten(0, 1), q.flatten(0, 1) * s, rows).view(-1, STEPS).cumprod(-1).sum(-1).mean()
            for s in (scale, scale * STEP, scale / STEP)
        )
        assert all(other < here + WORTH + 1e-4 for other in others)


def test_logits_that_are_too_sharp_are_brought_back(target, windows, sharp):
    plain = calibrate(head_of(1.0), target, windows, STEPS, autocast=False)
    for bucket, before, after in zip(BUCKETS, plain.scales, sharp.scales, strict=True):
        if bucket.temperature >= 0.8:  # below, p and q are nearly one-hot, and sharpness hardly matters
            assert 1 / STEP**2 < 1.5 * after / before < STEP**2, bucket


def test_the_command_writes_what_servers_read(tmp_path):
    shutil.copytree(HEAD, tmp_path / "head")
    (tmp_path / "text.txt").write_text((MODEL.parent / "make.py").read_text()[:1500])
    arguments = ["calibrate", "--head", tmp_path / "head", "--model", MODEL, "--data", tmp_path / "text.txt"]
    result = CliRunner().invoke(app, [str(a) for a in [*arguments, "--seq-len", 64, "--windows", 4]])
    assert result.exit_code == 0, result.output
    found = load_calibration(tmp_path / "head")
    assert f"temperature 1 without filters: logits times {found.scale(1.0):g}" in result.output
