"""`specdec sae` as a command."""

import json
from pathlib import Path

import pytest

from tests.helpers.tiny_models import make_target, write_text

FILES = Path(__file__).parents[1] / "steering" / "files"


def test_info(run, model):
    status, out, _ = run("sae", "info", FILES / "saelens-jumprelu")
    assert status == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert lines["format"].strip() == "saelens"
    assert lines["kind"].strip() == "JumpReLU, threshold 0.1642 to 1.078"
    status, out, _ = run("sae", "info", FILES / "saelens-topk", "--model", model, "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["kind"], facts["k"], facts["d"], facts["features"]) == ("TopK, k 4", 4, 8, 16)
    assert facts["fits"] is True


def test_info_of_one_that_does_not_fit(run, model):
    config = json.loads((model / "config.json").read_text()) | {"hidden_size": 9, "num_hidden_layers": 2}
    (model / "config.json").write_text(json.dumps({"text_config": config}))
    status, out, _ = run("sae", "info", FILES / "saelens-topk", "--model", model, "--json")
    assert status == 0 and json.loads(out)["fits"] is False
    assert "vectors of 8 numbers, the model's have 9" in json.loads(out)["reason"]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    """A folder with a random `model`, `text`, and an `sae` trained by the command."""
    folder = tmp_path_factory.mktemp("served")
    make_target(folder / "model")
    write_text(folder / "text", 30)
    return folder


def options(served: Path) -> list[object]:
    small = {
        "layer": 1,
        "features": 48,
        "k": 4,
        "tokens": 2048,
        "batch-tokens": 256,
        "buffer-batches": 4,
        "seq-len": 32,
    }
    named = {"model": served / "model", "data": served / "text", "eval-windows": 8, **small}
    return [part for name, value in named.items() for part in (f"--{name}", value)]


def test_train_then_features(run, served):
    sae = served / "sae"
    status, out, err = run("sae", "train", "--output", sae, *options(served))
    assert status == 0, err
    assert "held out, 256 tokens: explained variance" in out and "with the reconstruction spliced in" in out
    assert {p.name for p in sae.iterdir()} == {"cfg.json", "sae_weights.safetensors", "training.json"}
    report = json.loads((sae / "training.json").read_text())
    assert report["settings"]["k"] == 4 and report["held_out"]["tokens"] == 256
    facts = json.loads(run("sae", "info", sae, "--model", served / "model", "--json")[1])
    assert (facts["fits"], facts["layer"], facts["features"], facts["model_name"]) == (True, 1, 48, "model")

    status, _, err = run("sae", "train", "--output", sae, *options(served))
    assert status == 2 and "already holds an SAE" in err

    page, figures = served / "f.html", served / "f.json"
    given = ("--model", served / "model", "--sae", sae, "--data", served / "text", "--seq-len", 32, "--output", page)
    status, out, err = run("sae", "features", *given, "--json", figures, "--count", 5, "--snippets", 3)
    assert status == 0, err
    listed = json.loads(figures.read_text())["features"]
    assert 0 < len(listed) <= 5 and all(len(f["snippets"]) == 3 for f in listed)
    assert all(f"id='f{f['id']}'" in page.read_text() for f in listed)
    status, _, err = run("sae", "features", *given, "--feature", 48)
    assert status == 2 and "--feature 48: the SAE has features 0 to 47" in err


def test_train_says_what_is_wrong_before_it_starts(run, served, tmp_path):
    status, _, err = run("sae", "train", "--output", tmp_path, *options(served), "--layer", 7)
    assert status == 2 and "--layer 7: the model has layers 0 to 1" in err
    status, _, err = run("sae", "train", "--output", tmp_path, *options(served), "--resume")
    assert status == 2 and "no run to resume" in err


def test_features_of_another_models_sae(run, served):
    given = ("--model", served / "model", "--sae", FILES / "saelens-topk", "--data", served / "text")
    status, _, err = run("sae", "features", *given)
    assert status == 2 and "reads vectors of 8 numbers, the model's have 32" in err


def test_info_of_nothing(run, tmp_path):
    status, out, err = run("sae", "info", tmp_path / "nowhere")
    assert (status, out) == (2, "") and "no SAE at" in err and err.count("\n") == 1
    status, _, err = run("sae", "info", FILES / "saelens-topk", "--model", tmp_path)
    assert status == 2 and "no model at" in err
