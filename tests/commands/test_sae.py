"""`specdec sae` as a command."""

import json
from pathlib import Path

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


def test_info_of_nothing(run, tmp_path):
    status, out, err = run("sae", "info", tmp_path / "nowhere")
    assert (status, out) == (2, "") and "no SAE at" in err and err.count("\n") == 1
    status, _, err = run("sae", "info", FILES / "saelens-topk", "--model", tmp_path)
    assert status == 2 and "no model at" in err
