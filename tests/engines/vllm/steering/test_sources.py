"""What a server can steer with: files that do not fit are named before anything is served."""

import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("vllm")

from specdec.config import SteeringSettings
from specdec.engines.vllm.steering.sources import catalog_of, load_sources
from specdec.errors import SpecdecError
from specdec.steering.save import save_sae
from tests.engines.vllm.steering.served import FEATURES, LATE, LAYERS, MIDDLE, WIDTH, make_served, random_sae

MODEL = SimpleNamespace(hidden_size=WIDTH, num_hidden_layers=LAYERS)


def load(model: Any = MODEL, **settings: Any) -> Any:
    return load_sources(SteeringSettings.model_validate(settings), model)


def look_at(**settings: Any) -> Any:
    return catalog_of(SteeringSettings.model_validate(settings), MODEL)


def test_what_the_settings_name_is_loaded(tmp_path: Path) -> None:
    served = make_served(tmp_path)
    sources = load(**served.settings["steering"])
    assert sources.layers == [MIDDLE, LATE]
    assert sources.catalog.saes == served.catalog.saes
    assert sources.catalog.vectors == {"calm": MIDDLE}
    torch.testing.assert_close(sources.saes["middle"].W_dec, served.saes["middle"].W_dec)
    torch.testing.assert_close(sources.vectors["calm"], served.vectors["calm"])


def test_a_layer_in_the_settings_counts_more_than_the_file(tmp_path: Path) -> None:
    save_sae(replace(random_sae(1), hook="blocks.3.hook_resid_post"), tmp_path / "sae")
    sources = load(saes={"a": {"path": str(tmp_path / "sae"), "layer": 7}})
    assert sources.layers == [7] and sources.saes["a"].layer == 7


def test_what_the_api_server_looks_at_is_what_the_worker_loads(tmp_path: Path) -> None:
    settings = make_served(tmp_path).settings["steering"]
    assert look_at(**settings) == load(**settings).catalog


def test_k_of_a_file_that_does_not_say(tmp_path: Path) -> None:
    sae = random_sae(1)
    tensors = {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec.T, "b_dec": sae.b_dec}
    torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "layer3.sae.pt")
    path = str(tmp_path / "layer3.sae.pt")
    assert "does not say how many features are active: give k" in refusal(saes={"a": path})
    settings = {"saes": {"a": {"path": path, "k": 50}}}
    assert str(load(**settings).saes["a"].activation) == "TopK, k 50"
    assert look_at(**settings).saes == {"a": (3, FEATURES)}
    save_sae(sae, tmp_path / "sae")
    assert "has no TopK but JumpReLU" in refusal(saes={"a": {"path": str(tmp_path / "sae"), "layer": 3, "k": 50}})


def refusal(**settings: Any) -> str:
    """The worker's, and the API server's, which has to be the same."""
    with pytest.raises(SpecdecError) as refused:
        load(**settings)
    with pytest.raises(SpecdecError, match=re.escape(str(refused.value))):
        look_at(**settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_saes_that_do_not_fit(tmp_path: Path) -> None:
    save_sae(random_sae(1), tmp_path / "sae")
    path = str(tmp_path / "sae")
    assert "does not say which layer's output it belongs to" in refusal(saes={"a": path})
    said = refusal(saes={"a": {"path": path, "layer": LAYERS}})
    assert said == f"steering.saes.a: layer {LAYERS} is out of range: this model has 0 to {LAYERS - 1}"
    wide = SimpleNamespace(hidden_size=4096, num_hidden_layers=LAYERS)
    with pytest.raises(SpecdecError, match="is for a model of width 160, this one has 4096"):
        load(wide, saes={"a": {"path": path, "layer": 1}})
    assert "missing" in refusal(saes={"a": str(tmp_path / "missing")})


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "layer3.sae.pt").write_bytes(pickle.dumps({"W_enc": Harmful()}))
    assert "layer3.sae.pt" in refusal(saes={"a": {"path": str(tmp_path / "layer3.sae.pt"), "layer": 3}})
    assert not (tmp_path / "executed").exists()


def test_vectors_that_do_not_fit(tmp_path: Path) -> None:
    def saved(**tensors: torch.Tensor) -> dict[str, Any]:
        path = tmp_path / "vector.safetensors"
        save_file(tensors, path)
        return {"v": {"path": str(path), "layer": 3}}

    assert "has the shape [8], this model wants [160]" in refusal(vectors=saved(a=torch.ones(8)))
    assert "holds 2 tensors: one vector of [160] is wanted" in refusal(
        vectors=saved(a=torch.ones(WIDTH), b=torch.ones(WIDTH))
    )
    assert "no direction" in refusal(vectors=saved(a=torch.zeros(WIDTH)))
    assert "no direction" in refusal(vectors=saved(a=torch.full((WIDTH,), torch.nan)))
    named = saved(a=torch.ones(WIDTH))["v"]["path"]
    assert 'say which layer with {"path": ..., "layer": ...}' in refusal(vectors={"v": named})
    Path(named).write_bytes(b"no tensors")
    assert "cannot read" in refusal(vectors={"v": {"path": named, "layer": 3}})


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    assert f"steering.layers: layer 99 is out of range: this model has 0 to {LAYERS - 1}" == refusal(layers=[99])
    preset = {"odd": {"steer": [{"vector": "loud", "add": 1}]}}
    assert "steering.presets.odd: steer[0]: unknown vector 'loud'" in refusal(layers=[3], presets=preset)
