"""`specdec train` from a model's own MTP layer, and in the EAGLE layout, as far as the folders that are served."""

from pathlib import Path

import pytest
import torch

from specdec.cli import main
from specdec.errors import SpecdecError
from specdec.heads.checkpoint import load_head_config
from specdec.heads.eagle import export_eagle
from specdec.heads.put_back import put_back
from specdec.heads.target_config import load_config
from specdec.training.settings import Settings
from specdec.training.start import check_run
from tests.helpers.native_models import make_native, mtp_names, read_checkpoint
from tests.helpers.tiny_models import make_target, write_text


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"), 12)


def train(model: Path, data: Path, output: Path, *options: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([
            "train", "--model", str(model), "--data", str(data), "--output", str(output), "--steps", "2",
            "--batch-tokens", "64", "--seq-len", "32", "--eval-windows", "2", "--dtype", "float32", "--device", "cpu",
            "--lr", "0.001", *map(str, options),
        ])  # fmt: skip
    assert not end.value.code


# qwen3_next with the recurrent layer that its targets have, which obeys no mask between packed documents.
@pytest.mark.parametrize(
    ("family", "changes"),
    [("mimo", {}), ("deepseek_v3", {}), ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]})],
)
def test_from_the_models_own_layer_and_back(data, tmp_path, family, changes):
    model = make_native(tmp_path / "model", family, shards=2, **changes)
    train(model, data, tmp_path / "head", "--init", "native")
    put_back(tmp_path / "head", model, tmp_path / "new")
    old, new = read_checkpoint(model), read_checkpoint(tmp_path / "new")
    learnt = {name for name in old if not torch.equal(old[name], new[name])}
    assert learnt and learnt <= set(mtp_names(old, family))
    shared = ("embed_tokens.weight", "shared_head.head.weight", "e_score_correction_bias")
    assert not any(name.endswith(shared) for name in learnt)
    for name in learnt:  # it went on from what was there: two small steps away
        assert (old[name] - new[name]).abs().max() < 0.05, name


def test_in_the_eagle_layout(data, tmp_path):
    model = make_target(tmp_path / "model", "qwen2")
    train(model, data, tmp_path / "head", "--layout", "eagle")
    assert load_head_config(tmp_path / "head").layout == "eagle"
    export_eagle(tmp_path / "head", tmp_path / "eagle")
    settings = Settings(
        model=model, data=[data], output=tmp_path / "on", seq_len=32, init_from=tmp_path / "head", layout="standalone"
    )
    with pytest.raises(SpecdecError, match="has the layout 'eagle', not 'standalone'"):
        check_run(settings, load_config(model))


def test_what_is_refused_before_anything_is_loaded(tmp_path, data):
    llama, mimo = make_target(tmp_path / "llama"), make_native(tmp_path / "mimo", "mimo", mtp=False)

    def refused(model: Path, message: str, **options) -> None:
        settings = Settings(model=model, data=[data], output=tmp_path / "head", seq_len=32, **options)
        with pytest.raises(SpecdecError, match=message):
            check_run(settings, load_config(model))

    refused(llama, "family 'llama' have no MTP layer of their own", init="native")
    refused(mimo, "holds no MTP layer", init="native")
    refused(mimo, "cannot have the layout 'eagle': use native", layout="eagle")
