"""Folders in the EAGLE layout: written for stock engines, and read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from specdec.errors import SpecdecError
from specdec.heads import HeadConfig, MTPHead, load_head, save_head
from specdec.heads.eagle import export_eagle, import_eagle
from specdec.heads.module import init_from_target, init_random
from specdec.heads.target_config import load_config
from specdec.training.target import Target
from tests.helpers.tiny_models import make_config, make_target

LAYER = [
    *(f"layers.0.self_attn.{p}_proj.weight" for p in "qkvo"),
    *(f"layers.0.mlp.{p}_proj.weight" for p in ("gate", "up", "down")),
    "layers.0.post_attention_layernorm.weight",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """model: a qwen3 target; head: a head for it; eagle: that head as vLLM takes it."""
    root = tmp_path_factory.mktemp("eagle")
    make_target(root / "model", "qwen3")
    head = MTPHead(HeadConfig.for_target(load_config(root / "model"), "eagle"))
    init_random(head)
    save_head(head, root / "head")
    export_eagle(root / "head", root / "eagle")
    return root


def changed(eagle: Path, to: Path, config: dict | None = None, **tensors: torch.Tensor) -> Path:
    to.mkdir()
    content = json.loads((eagle / "config.json").read_text()) | (config or {})
    (to / "config.json").write_text(json.dumps(content))
    save_file({**load_file(eagle / "model.safetensors"), **tensors}, to / "model.safetensors")
    return to


def test_what_engines_find(folder):
    """Names and fields as in vLLM's models/llama_eagle.py; a Llama layer, though the target is Qwen3."""
    assert sorted(load_file(folder / "eagle" / "model.safetensors")) == sorted(["fc.weight", *LAYER])
    config = json.loads((folder / "eagle" / "config.json").read_text())
    target = make_config("qwen3")
    wanted = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
    for name in ("hidden_size", "vocab_size", "head_dim", "num_key_value_heads", "rope_parameters", "rms_norm_eps"):
        wanted[name] = getattr(target, name)
    assert {name: config[name] for name in wanted} == wanted


def test_what_sglang_finds(folder, tmp_path):
    export_eagle(folder / "head", tmp_path / "eagle", "sglang")
    assert json.loads((tmp_path / "eagle" / "config.json").read_text())["architectures"] == ["LlamaForCausalLMEagle"]
    tensors = load_file(tmp_path / "eagle" / "model.safetensors")
    assert tensors["fc.bias"].shape == (32,) and not tensors["fc.bias"].any()
    import_eagle(tmp_path / "eagle", folder / "model", tmp_path / "head")
    assert (tmp_path / "head" / "model.safetensors").read_bytes() == (
        folder / "head" / "model.safetensors"
    ).read_bytes()


def test_it_comes_back_to_the_byte(folder, tmp_path):
    import_eagle(folder / "eagle", folder / "model", tmp_path / "head")
    assert (tmp_path / "head" / "model.safetensors").read_bytes() == (
        folder / "head" / "model.safetensors"
    ).read_bytes()
    export_eagle(tmp_path / "head", tmp_path / "eagle")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "eagle" / name).read_bytes() == (folder / "eagle" / name).read_bytes()


def test_a_head_of_other_widths_than_its_target(folder, tmp_path):
    """As released ones may be: fewer heads and a narrower layer, other rotary angles, in fields of older folders."""
    layer = {k: v[: len(v) // 2] for k, v in load_file(folder / "eagle" / "model.safetensors").items()}
    half = {k: layer[k] for k in LAYER if "q_proj" in k or "gate" in k or "up_proj" in k}
    half |= {k: torch.zeros(32, 32) for k in LAYER if "o_proj" in k or "down_proj" in k}
    config = {"num_attention_heads": 2, "intermediate_size": 32, "rope_theta": 5000.0}
    eagle = changed(folder / "eagle", tmp_path / "eagle", config, **{k: v.contiguous() for k, v in half.items()})
    content = json.loads((eagle / "config.json").read_text())
    del content["rope_parameters"]
    (eagle / "config.json").write_text(json.dumps(content))
    embedding = load_file(folder / "model" / "model.safetensors")["model.embed_tokens.weight"]
    save_file({**load_file(eagle / "model.safetensors"), "embed_tokens.weight": embedding}, eagle / "model.safetensors")
    import_eagle(eagle, folder / "model", tmp_path / "head")
    head = load_head(tmp_path / "head", load_config(folder / "model"))
    assert head.layer.self_attn.config.num_attention_heads == 2
    assert head.rotary.config.rope_parameters["rope_theta"] == 5000.0
    export_eagle(tmp_path / "head", tmp_path / "again")
    exported = json.loads((tmp_path / "again" / "config.json").read_text())
    assert exported["num_attention_heads"] == 2 and exported["rope_parameters"]["rope_theta"] == 5000.0


@pytest.mark.parametrize(
    ("config", "tensors", "named"),
    [
        ({"num_hidden_layers": 2}, {}, "'llama' of 2 layers: only EAGLE heads of one Llama layer"),
        ({"hidden_size": 48}, {}, "its hidden_size is 48, the target's is 32"),
        ({}, {"fc.bias": torch.ones(32)}, "fc.bias in .* is not zero"),
        ({}, {"d2t": torch.zeros(5)}, "for 'd2t' the shape .* only EAGLE heads"),
        ({}, {"embed_tokens.weight": torch.zeros(257, 32)}, "embed_tokens.weight in .* is not the target's"),
    ],
)
def test_folders_that_are_not_for_this_target(folder, tmp_path, config, tensors, named):
    eagle = changed(folder / "eagle", tmp_path / "eagle", config, **tensors)
    with pytest.raises(SpecdecError, match=named):
        import_eagle(eagle, folder / "model", tmp_path / "head")


def test_heads_of_another_layout(folder, tmp_path):
    save_head(MTPHead(HeadConfig.for_target(load_config(folder / "model"))), tmp_path / "ours")
    with pytest.raises(SpecdecError, match="has the layout 'standalone', which stock engines have no class for"):
        export_eagle(tmp_path / "ours", tmp_path / "eagle")
    with pytest.raises(SpecdecError, match="unknown engine 'trt': use one of vllm, sglang"):
        export_eagle(folder / "head", tmp_path / "eagle", "trt")


def test_start_from_the_targets_last_layer(folder, tmp_path):
    llama = Target(make_target(tmp_path / "llama", "llama"), torch.float32)
    head = MTPHead(HeadConfig.for_target(llama.config, "eagle"))
    init_from_target(head, llama.model)
    last = llama.model.model.layers[-1].state_dict()
    assert all(torch.equal(tensor, last[name]) for name, tensor in head.layer.state_dict().items())
    qwen3 = Target(folder / "model", torch.float32)
    with pytest.raises(SpecdecError, match="last layer is of another kind than the head's"):
        init_from_target(MTPHead(HeadConfig.for_target(qwen3.config, "eagle")), qwen3.model)
