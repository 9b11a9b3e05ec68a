"""Held-out figures against their definitions, and `specdec eval`."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from specdec.commands.eval import evaluate
from specdec.drafting import BUCKETS, Bucket, Calibration
from specdec.errors import SpecdecError
from specdec.evaluation.acceptance import Filters, measure_acceptance
from specdec.heads import HeadConfig, MTPHead, load_head, save_head, unroll
from specdec.heads.module import init_from_target
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, load_documents
from specdec.training.target import Target
from tests.helpers.tiny_models import make_config, make_target, write_text

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eval")
    make_target(path / "model")
    write_text(path / "text", 6)
    target = Target(path / "model", torch.float32)
    for name, noise in (("near", 0.01), ("far", 2.0)):
        head = MTPHead(HeadConfig.for_target(target.config))
        init_from_target(head, target.model, noise, torch.Generator().manual_seed(0))
        save_head(head, path / name)
    return path


@torch.no_grad()
def test_figures_follow_their_definitions(folder):
    """One document, one window, one anchor at a time with plain loops, at a temperature other than 1."""
    from specdec.heads import load_head

    target, head = Target(folder / "model", torch.float32), load_head(folder / "near")
    ids = load_documents(target.tokenizer, [folder / "text"])[0].ids[1:].tolist()
    windows = held_out_windows(TokenStream.pack([ids], 0), 1, 20, 1)
    got = measure_acceptance(head, target, windows, 2, Filters(temperature=0.7), autocast=False)

    hidden = target.model.model(windows[0].tokens).last_hidden_state
    outs = unroll(head, target.embed(windows[0].tokens), hidden, 2, torch.arange(20)[None])
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


def test_filters():
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    assert Filters(temperature=0).probabilities(logits).tolist() == [[[1, 0, 0, 0]]]
    kept = Filters(temperature=2.0, top_k=2).probabilities(logits)
    torch.testing.assert_close(kept[0, 0], torch.cat([torch.tensor([1.5, 1.0]).softmax(-1), torch.zeros(2)]))
    assert (Filters(min_p=0.3).probabilities(logits) > 0).sum() == 2  # e^-1 = 0.37 of the top stays, e^-2 goes
    assert (Filters(top_p=0.5).probabilities(logits) > 0).sum() == 1


def command(folder, *options):
    arguments = [
        "--model",
        folder / "model",
        "--data",
        folder / "text",
        "--seq-len",
        32,
        "--dtype",
        "float32",
        *options,
    ]
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_command_compares_heads(folder, tmp_path):
    heads = ["--head", folder / "near", "--head", folder / "far"]
    result = command(folder, *heads, "--temperature", 1, "--temperature", 0, "--json", tmp_path / "new" / "out.json")
    assert result.exit_code == 0, result.output
    assert "held-out acceptance" in result.output and "target-only" in result.output
    rows = json.loads((tmp_path / "new" / "out.json").read_text())["results"]
    assert [row["filters"]["temperature"] for row in rows] == [1, 0, 1, 0]
    assert all(1 <= row["length"] <= 4 and len(row["alpha"]) == 3 for row in rows)
    assert rows[1]["length"] == pytest.approx(rows[1]["greedy_length"])  # at temperature 0 both ways are one


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--temperature", -1], "--temperature cannot be -1"),
        (["--top-p", 0], "--top-p cannot be 0"),
        (["--top-k", -1], "--top-k cannot be -1"),
        (["--min-p", 2], "--min-p cannot be 2"),
        (["--num-steps-ahead", 0], "--num-steps-ahead cannot be 0"),
        (["--seq-len", 4], "--seq-len cannot be 4"),
        (["--windows", 0], "--windows cannot be 0"),
        (["--data", "/nowhere"], "there is no data at /nowhere"),
        (["--head", "/nowhere"], "there is no head at /nowhere"),
        (["--json", "/proc/none/x.json"], "cannot write /proc/none/x.json"),
    ],
)
def test_command_names_what_is_wrong(folder, options, text):
    result = command(folder, "--head", folder / "near", *options)
    assert result.exit_code != 0 and isinstance(result.exception, SpecdecError), result.output
    assert text in str(result.exception) and "\n" not in str(result.exception)


def test_head_of_another_target(folder, tmp_path):
    save_head(MTPHead(HeadConfig.for_target(make_config(hidden_size=48))), tmp_path)
    result = command(folder, "--head", tmp_path)
    assert "its hidden size is 48, the target's is 32" in str(result.exception)


def test_drafts_are_drawn_at_the_heads_draft_scales(folder):
    """As from a head whose logits are that much smaller; greedy drafts do not change."""
    target = Target(folder / "model", torch.float32)
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
