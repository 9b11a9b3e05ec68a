"""Reading and writing heads: what is written comes back, and each fault is named in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from specdec.errors import SpecdecError
from specdec.heads import HeadConfig, MTPHead, load_head, register, save_head
from specdec.heads.module import init_random
from tests.helpers.tiny_models import FAMILIES, make_config


@pytest.fixture
def folder(tmp_path):
    head = MTPHead(HeadConfig.for_target(make_config()))
    init_random(head)
    save_head(head, tmp_path / "head")
    return tmp_path / "head"


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_comes_back_as_written(family, tmp_path):
    target = make_config(family)
    head = MTPHead(HeadConfig.for_target(target))
    init_random(head)
    save_head(head, tmp_path)
    again = load_head(tmp_path, target)
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), again.state_dict().values(), strict=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    modes = {p.name: p.stat().st_mode for p in tmp_path.iterdir()}  # a server may run as another user
    assert modes["model.safetensors"] == modes["config.json"]
    register()
    assert isinstance(AutoConfig.from_pretrained(tmp_path), HeadConfig)


def test_config_names_target_and_layer(folder):
    config = json.loads((folder / "config.json").read_text())
    wanted = {
        "model_type": "mtp", "architectures": ["SpecdecMTPHead"], "specdec_version": 1, "hidden_size": 32,
        "target_architecture": "LlamaForCausalLM", "target_family": "llama", "vocab_size": 257, "num_hidden_layers": 1,
        "num_nextn_predict_layers": 1, "concat_order": "embedding_hidden", "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    assert {k: config[k] for k in wanted} == wanted
    assert config["target_config"]["num_hidden_layers"] == 2
    assert "_name_or_path" not in config["target_config"]
    assert not any(name.startswith(("embed", "lm_head")) for name in load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 48}, "hidden size is 32, the target's is 48"),
        ({"vocab_size": 300}, "vocab size is 257, the target's is 300"),
    ],
)
def test_head_of_another_shape(folder, changes, named):
    with pytest.raises(SpecdecError, match=named):
        load_head(folder, make_config(**changes))


def test_head_of_another_family(folder):
    with pytest.raises(SpecdecError, match="its family is llama, the target's is qwen3"):
        load_head(folder, make_config("qwen3"))


def test_unsupported_target():
    with pytest.raises(SpecdecError, match="Unknown target family 'gpt2': use one of llama, qwen2, qwen3, mimo"):
        HeadConfig.for_target(AutoConfig.for_model("gpt2"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("eh_proj.weight"), "lacks 1 tensor.*'eh_proj.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 tensor.* of no use here, the first 'extra'"),
        (lambda t: t.update({"norm.weight": torch.zeros(7)}), r"'norm.weight' of shape \[7\] where \[32\] is needed"),
    ],
)
def test_wrong_tensors(folder, change, named):
    change_weights(folder, change)
    with pytest.raises(SpecdecError, match=named):
        load_head(folder)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_weights(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SpecdecError, match="damaged or cut short"):
        load_head(folder)


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{}"), "does not describe a specdec head"),
        (lambda f: f.rename(f.with_name("elsewhere")), "there is no head at"),
    ],
)
def test_broken_folder(folder, break_it, named):
    break_it(folder)
    with pytest.raises(SpecdecError, match=named):
        load_head(folder)


def test_newer_format(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "specdec_version": 2}))
    with pytest.raises(SpecdecError, match="format version 2"):
        load_head(folder)
