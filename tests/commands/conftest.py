"""A model's and a head's folder with the right shapes and nothing learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTH, VOCABULARY = 8, 32


def write_head(folder: Path, width: int = WIDTH, vocabulary: int = VOCABULARY, leave_out: str = "") -> Path:
    folder.mkdir(parents=True)
    config = {
        "model_type": "mtp",
        "architectures": ["SpecdecMTPHead"],
        "target_architecture": "LlamaForCausalLM",
        "hidden_size": width,
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"enorm.weight": (width,), "hnorm.weight": (width,), "norm.weight": (width,)}
    shapes["eh_proj.weight"] = (width, 2 * width)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if name != leave_out}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def head(tmp_path: Path) -> Path:
    return write_head(tmp_path / "head")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """run("serve", ...) -> (exit status, stdout, stderr) of the command line, in this process."""
    from specdec.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call
