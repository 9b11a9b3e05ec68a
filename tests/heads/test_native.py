"""A checkpoint's own MTP layer as a head and back: what is not trained keeps every byte, and the index stays valid."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from specdec.engines.checks import OWN_MTP
from specdec.errors import SpecdecError
from specdec.heads import HeadConfig, load_head, save_head
from specdec.heads.checkpoint import load_head_config
from specdec.heads.families import FAMILIES
from specdec.heads.native import extract
from specdec.heads.put_back import put_back
from specdec.heads.target_config import load_config
from specdec.training.data import TokenStream
from specdec.training.target import Target
from tests.helpers.native_models import NATIVE_FAMILIES, make_native, mtp_names, read_checkpoint
from tests.helpers.tiny_models import make_target

SPLIT = {"dtype": torch.bfloat16, "shards": 3}  # as released: bfloat16 in several files


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Family -> folder of a model in three files; qwen3_5_text in one, float32."""
    root = tmp_path_factory.mktemp("models")
    return {f: make_native(root / f, f, **({} if f == "qwen3_5_text" else SPLIT)) for f in NATIVE_FAMILIES}


def test_serve_and_heads_know_the_same_families():
    """`specdec serve` has a table of its own, which needs neither PyTorch nor transformers."""
    families = {name: FAMILIES.get(name) for name in FAMILIES.names()}
    assert {name: family.native.count for name, family in families.items() if family.native} == OWN_MTP


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copy_with(model: Path, to: Path, change) -> Path:
    """A copy in one file, its tensors changed."""
    tensors = read_checkpoint(model)
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("model*.safetensors*"))
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def stacked(tensors: dict[str, torch.Tensor]) -> None:
    """The experts as later checkpoints have them: one tensor for all, gate above up."""
    for base in {name.split(".experts.")[0] for name in tensors if ".experts." in name}:
        parts = {k: tensors.pop(k) for k in list(tensors) if k.startswith(f"{base}.experts.")}
        gate, up, down = (
            torch.stack([parts[f"{base}.experts.{e}.{kind}_proj.weight"] for e in range(4)])
            for kind in ("gate", "up", "down")
        )
        tensors[f"{base}.experts.gate_up_proj"] = torch.cat((gate, up), dim=1)
        tensors[f"{base}.experts.down_proj"] = down


@pytest.mark.parametrize("family", NATIVE_FAMILIES)
def test_untrained_it_comes_back_to_the_byte(models, family, tmp_path):
    extract(models[family], tmp_path / "head")
    head = load_head(tmp_path / "head", load_config(models[family]))  # float32
    save_head(head, tmp_path / "saved")  # as the trainer does
    for name in ("head", "saved"):
        put_back(tmp_path / name, models[family], tmp_path / f"with-{name}")
        assert contents(tmp_path / f"with-{name}") == contents(models[family])


@pytest.mark.parametrize("family", ["mimo", "deepseek_v3", "qwen3_next"])
def test_trained_it_changes_its_own_tensors_alone(models, family, tmp_path):
    model, before = models[family], contents(models[family])
    extract(model, tmp_path / "head")
    head = load_head(tmp_path / "head")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2.0)  # exact in bfloat16
    save_head(head, tmp_path / "head")
    put_back(tmp_path / "head", model, tmp_path / "new")
    old, new = read_checkpoint(model), read_checkpoint(tmp_path / "new")
    not_learnt = ("embed_tokens.weight", "shared_head.head.weight", "e_score_correction_bias")
    trained = {name for name in mtp_names(old, family) if not name.endswith(not_learnt)}
    for name in old:
        assert torch.equal(new[name], old[name] * (2 if name in trained else 1)), name
    assert contents(model) == before
    for file in ("config.json", "tokenizer.json"):
        assert os.path.samefile(model / file, tmp_path / "new" / file), "a hard link takes no room"


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_next", "qwen3_5_text"])
def test_a_checkpoint_that_lost_its_layer_gets_it_back(models, family, tmp_path):
    """As training frameworks leave it: no MTP tensors, no number of MTP layers."""
    how = {} if family == "qwen3_5_text" else SPLIT
    lost = make_native(tmp_path / "lost", family, mtp=False, **how)
    config = json.loads((lost / "config.json").read_text())
    field = "mtp_num_hidden_layers" if family == "qwen3_5_text" else "num_nextn_predict_layers"
    del config[field]
    (lost / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecdecError, match="holds no MTP layer"):
        extract(lost, tmp_path / "nothing")
    extract(models[family], tmp_path / "head")
    put_back(tmp_path / "head", lost, tmp_path / "new")
    found, wanted = read_checkpoint(tmp_path / "new"), read_checkpoint(models[family])
    assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in wanted.values())
    assert json.loads((tmp_path / "new" / "config.json").read_text())[field] == 1


def test_experts_in_one_tensor(models, tmp_path):
    """Later checkpoints stack them; they read as the same head, and go back as they were."""
    model = copy_with(models["qwen3_5_moe_text"], tmp_path / "stacked", stacked)
    extract(model, tmp_path / "head")
    extract(models["qwen3_5_moe_text"], tmp_path / "other")
    ours, same = (load_file(tmp_path / name / "model.safetensors") for name in ("head", "other"))
    assert all(torch.equal(ours[name], same[name]) for name in same)
    put_back(tmp_path / "head", model, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(model)
    lost = copy_with(model, tmp_path / "lost", lambda t: [t.pop(k) for k in mtp_names(t, "qwen3_5_moe_text")])
    put_back(tmp_path / "head", lost, tmp_path / "again")
    assert read_checkpoint(tmp_path / "again").keys() == read_checkpoint(model).keys()


@torch.no_grad()
def test_a_multimodal_checkpoint(models, tmp_path):
    """As Qwen3.5 is released: its text model's configuration and tensors within a larger one's; MTP beside them."""
    plain = models["qwen3_5_text"]
    tensors = {k.replace("model.", "model.language_model.", 1): v for k, v in read_checkpoint(plain).items()}
    whole = copy_with(plain, tmp_path / "whole", lambda t: (t.clear(), t.update(tensors)))
    text = json.loads((plain / "config.json").read_text())
    config = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": text}
    (whole / "config.json").write_text(json.dumps(config))
    windows = TokenStream.pack([[5, 6, 7, 8]], 0).windows(torch.tensor([0]), 5)
    assert torch.equal(*(Target(folder, torch.float32).hidden(windows) for folder in (plain, whole)))
    extract(whole, tmp_path / "head")
    put_back(tmp_path / "head", whole, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(whole)
    lost = copy_with(whole, tmp_path / "lost", lambda t: [t.pop(k) for k in mtp_names(t, "qwen3_5_text")])
    del text["mtp_num_hidden_layers"]
    (lost / "config.json").write_text(json.dumps(config))
    put_back(tmp_path / "head", lost, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["text_config"]["mtp_num_hidden_layers"] == 1


def test_the_calibration_of_a_head_goes_with_it(models, tmp_path):
    extract(models["mimo"], tmp_path / "head")
    (tmp_path / "head" / "calibration.json").write_text("its own")
    put_back(tmp_path / "head", models["mimo"], tmp_path / "new")
    assert (tmp_path / "new" / "calibration.json").read_text() == "its own"
    extract(tmp_path / "new", tmp_path / "again")
    assert (tmp_path / "again" / "calibration.json").read_text() == "its own"
    (tmp_path / "head" / "calibration.json").unlink()
    put_back(tmp_path / "head", tmp_path / "new", tmp_path / "newer")
    assert not (tmp_path / "newer" / "calibration.json").exists()


MTP = "model.mtp_layers.0."


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(f"{MTP}input_proj.weight"), f"lacks '{MTP}input_proj.weight'"),
        (
            lambda t: t.update({f"{MTP}mlp.up_proj.weight": t[f"{MTP}mlp.up_proj.weight"].to(torch.float8_e4m3fn)}),
            r"mlp.up_proj.weight in .* is quantised \(F8_E4M3\)",
        ),
        (lambda t: t.update({f"{MTP}mlp.up_proj.weight_scale_inv": torch.ones(1)}), "1 unknown MTP tensor"),
        (
            lambda t: t.update({f"{MTP}final_layernorm.weight": torch.ones(7)}),
            r"the shape \[7\] where \[64\] is needed",
        ),
    ],
)
def test_a_layer_that_is_not_as_released(models, tmp_path, change, named):
    model = copy_with(models["mimo"], tmp_path / "model", change)
    with pytest.raises(SpecdecError, match=named):
        extract(model, tmp_path / "head")
    extract(models["mimo"], tmp_path / "head")
    with pytest.raises(SpecdecError, match=named):
        put_back(tmp_path / "head", model, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head", "model"], "nothing half written"


def test_a_layer_with_an_lm_head_of_its_own(models, tmp_path):
    model = copy_with(
        models["deepseek_v3"], tmp_path / "model", lambda t: t["model.layers.2.shared_head.head.weight"].mul_(2)
    )
    with pytest.raises(SpecdecError, match=r"shared_head.head.weight in .* differs from lm_head.weight"):
        extract(model, tmp_path / "head")


def test_refusals(models, tmp_path):
    extract(models["mimo"], tmp_path / "head")
    with pytest.raises(SpecdecError, match="exists already"):
        extract(models["mimo"], tmp_path / "head")
    with pytest.raises(SpecdecError, match=r"cannot write .*Not a directory"):
        put_back(tmp_path / "head", models["mimo"], tmp_path / "head" / "config.json" / "new")
    with pytest.raises(SpecdecError, match="its family is mimo, the target's is qwen3_next"):
        put_back(tmp_path / "head", models["qwen3_next"], tmp_path / "new")
    with pytest.raises(SpecdecError, match="family 'llama' have no MTP layer of their own"):
        extract(make_target(tmp_path / "llama"), tmp_path / "new")
    config = json.loads((models["mimo"] / "config.json").read_text()) | {"num_nextn_predict_layers": 2}
    several = copy_with(models["mimo"], tmp_path / "several", lambda t: None)
    (several / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecdecError, match="has 2 MTP layers"):
        extract(several, tmp_path / "new")
    with pytest.raises(SpecdecError, match="cannot have the layout 'eagle': use native"):
        HeadConfig.for_target(load_config(models["mimo"]), "eagle")


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "00002-of-00003.safetensors is missing"),
        (lambda f: os.truncate(f / "model-00002-of-00003.safetensors", 9000), "its tensors are cut short"),
        (lambda f: os.truncate(f / "model-00002-of-00003.safetensors", 5), "damaged or cut short"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "index.json is missing, damaged"),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "holds neither model.safetensors.index.json nor"),
    ],
)
def test_broken_models(models, tmp_path, break_it, named):
    model = tmp_path / "model"
    shutil.copytree(models["mimo"], model)
    break_it(model)
    with pytest.raises(SpecdecError, match=named):
        extract(model, tmp_path / "head")


def test_a_call_that_was_killed_leaves_no_trace_in_the_next(models, tmp_path):
    extract(models["mimo"], tmp_path / "head")
    (tmp_path / ".new.partial").mkdir()
    (tmp_path / ".new.partial" / "half.safetensors").write_text("x")
    put_back(tmp_path / "head", models["mimo"], tmp_path / "new")
    assert contents(tmp_path / "new") == contents(models["mimo"])
    assert load_head_config(tmp_path / "head").layout == "native"
