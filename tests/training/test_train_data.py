"""`specdec train` over each kind of data, and from cached states: whole runs, resumed and refused ones."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from datasets import Dataset
from safetensors.torch import load_file
from typer.testing import CliRunner

from specdec.commands.eval import evaluate
from specdec.commands.train import train
from specdec.errors import SpecdecError
from specdec.training.trainer import Trainer
from tests.helpers.tiny_models import make_target, write_text

app = typer.Typer()
app.command()(train)
measure = typer.Typer()
measure.command()(evaluate)
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"  # noqa: E501


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    make_target(path / "model")
    write_text(path / "text")
    texts = [file.read_text() for file in sorted((path / "text").iterdir())]
    pq.write_table(pa.table({"content": texts}), path / "text.parquet")
    chats = [[{"role": "user", "content": t[:40]}, {"role": "assistant", "content": t[40:]}] for t in texts]
    Dataset.from_list([{"messages": c} for c in chats]).save_to_disk(path / "chats")
    (path / "chat.jinja").write_text(TEMPLATE)
    return path


def run(folder, output, *options, data="text", steps=6):
    arguments = ["--model", folder / "model", "--data", folder / data, "--output", output, "--steps", steps]
    arguments += ["--batch-tokens", 256, "--seq-len", 32, "--dtype", "float32", "--eval-windows", 4, *options]
    return CliRunner().invoke(app, [str(a) for a in arguments])


def fails(result, text):
    assert result.exit_code != 0 and isinstance(result.exception, SpecdecError), result.output
    assert text in str(result.exception) and "\n" not in str(result.exception)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b, **tolerance):
    return all(torch.allclose(a[name], b[name], **tolerance) for name in a)


def test_the_same_text_in_another_format_trains_the_same_head(folder, tmp_path):
    assert run(folder, tmp_path / "text").exit_code == 0
    result = run(folder, tmp_path / "parquet", "--text-field", "content", data="text.parquet")
    assert result.exit_code == 0, result.output
    assert same(weights(tmp_path / "text"), weights(tmp_path / "parquet"), rtol=0, atol=0)
    fails(run(folder, tmp_path / "none", data="text.parquet"), "has the columns content, but no token_ids")


def test_chats(folder, tmp_path):
    template = ("--chat-template", folder / "chat.jinja")
    for loss_on in ("all", "assistant"):
        result = run(folder, tmp_path / loss_on, *template, "--loss-on", loss_on, data="chats")
        assert result.exit_code == 0, result.output
    reports = (json.loads((tmp_path / n / "training.json").read_text()) for n in ("all", "assistant"))
    anchors = [report["held_out"]["anchors"] for report in reports]
    assert 0 < anchors[1] < anchors[0]
    assert not same(weights(tmp_path / "all"), weights(tmp_path / "assistant"))
    command = ["--model", folder / "model", "--head", tmp_path / "all", "--data", folder / "chats", *template]
    command += ["--seq-len", 32, "--prompts", 0, "--dtype", "float32", "--json", tmp_path / "eval.json"]
    measured = []
    for loss_on in ("all", "assistant"):
        assert CliRunner().invoke(measure, [str(a) for a in (*command, "--loss-on", loss_on)]).exit_code == 0
        measured.append(json.loads((tmp_path / "eval.json").read_text())["results"][0]["anchors"])
    assert 0 < measured[1] < measured[0]
    fails(CliRunner().invoke(measure, [str(a) for a in (*command, "--loss-on", "me")]), "--loss-on cannot be me")
    fails(run(folder, tmp_path / "none", data="chats"), "no chat template: give one with --chat-template")
    fails(run(folder, tmp_path / "none", "--loss-on", "assistant"), "use --loss-on all")
    fails(run(folder, tmp_path / "none", "--loss-on", "user"), "--loss-on 'user' is unknown: use one of all, assistant")


def test_cached_states(folder, tmp_path, monkeypatch):
    """The head is the same to rounding; a second run finds the states; a resumed one ends where it would have."""
    cache = ("--cache-hidden", tmp_path / "states")
    assert run(folder, tmp_path / "plain").exit_code == 0
    result = run(folder, tmp_path / "cached", *cache)
    assert result.exit_code == 0, result.output
    assert "x 32 x 4 bytes = 0.0" in result.output and "windows" in result.output
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "cached"), rtol=1e-3, atol=1e-4)

    monkeypatch.setattr("specdec.training.hidden_cache.HiddenCache._make", None)  # nothing is left to make
    plain = Trainer.step

    def killed(self):
        if self.step_number == 3:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Trainer, "step", killed)
    assert run(folder, tmp_path / "parts", *cache, "--save-every", 1e-6).exit_code != 0
    monkeypatch.setattr(Trainer, "step", plain)
    resumed = run(folder, tmp_path / "parts", *cache, "--save-every", 1e-6, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert same(weights(tmp_path / "cached"), weights(tmp_path / "parts"), rtol=0, atol=0)
    fails(run(folder, tmp_path / "other", *cache, "--seq-len", 64), "were made otherwise (--seq-len")


def test_one_pass_takes_every_window(folder, tmp_path):
    arguments = ["--model", folder / "model", "--data", folder / "text", "--output", tmp_path / "head"]
    arguments += ["--batch-tokens", 1024, "--seq-len", 64, "--dtype", "float32", "--eval-windows", 4]
    assert CliRunner().invoke(app, [str(a) for a in arguments]).exit_code == 0
    state = torch.load(tmp_path / "head" / "training_state.pt", weights_only=True)
    tokens = json.loads((tmp_path / "head" / "training.json").read_text())["tokens"]
    text = sum(len(f.read_text()) + 1 for f in (folder / "text").iterdir())
    assert state["finished"] and 0.8 * text < tokens < text + 2 * 1024


def test_resuming_on_other_data_is_refused(folder, tmp_path, monkeypatch):
    write_text(tmp_path / "text", 30)
    plain = Trainer.step

    def killed(self):
        if self.step_number == 2:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Trainer, "step", killed)
    assert run(folder, tmp_path / "head", "--save-every", 1e-6, data=tmp_path / "text").exit_code != 0
    (tmp_path / "text" / "new.txt").write_text("more")
    resumed = run(folder, tmp_path / "head", "--save-every", 1e-6, "--resume", data=tmp_path / "text")
    fails(resumed, "the data has changed since the run")


def test_data_is_looked_for_before_the_model_is_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("specdec.training.target.Target.__init__", None)
    fails(run(folder, tmp_path / "head", data="nowhere"), "there is no data at")
    assert not (tmp_path / "head").exists()
