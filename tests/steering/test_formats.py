"""Every format against its own library and against float64 by hand; what is broken or foreign is named."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdec.errors import SpecdecError
from specdec.steering import load_sae, outline_sae
from tests.steering.formulas import by_hand

FILES = Path(__file__).parent / "files"
FOLDERS = {str(p.parent.relative_to(FILES)): p.parent for p in sorted(FILES.rglob("expected.safetensors"))}
READERS = pytest.mark.parametrize("read", [load_sae, outline_sae])
IDS = torch.tensor([3, 0, 15, 3])
LLAMA = "fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L8R-8x"
GEMMA = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
QWEN = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_4"
GEMMA_2 = "google/gemma-scope-2-4b-it/resid_post/layer_17_width_16k_l0_medium"


def copied(name: str, to: Path) -> Path:
    """A copy under a name that says nothing."""
    return Path(shutil.copytree(FOLDERS[name], to / "sae"))


def test_every_format_is_here():
    assert {load_sae(folder).format for folder in FOLDERS.values()} == {
        "saelens", "gemma-scope", "gemma-scope-2", "llama-scope", "qwen-scope", "goodfire", "dictionary-learning",
        "sparsify",
    }  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_activations_and_reconstruction_of_the_original_library(name):
    """1e-6 of the largest: both are float32, sums of 8 products; a wrong bias, norm or transpose is off by tenths."""
    expected = load_file(FOLDERS[name] / "expected.safetensors")
    sae = load_sae(FOLDERS[name])
    assert (sae.d_in, sae.num_features) == (8, 16)
    f = sae.encode(expected["x"])
    atol = 1e-6 * expected["f"].max().item()
    torch.testing.assert_close(f, expected["f"], rtol=0, atol=atol)
    torch.testing.assert_close(sae.encode_features(expected["x"], IDS), expected["f"][:, IDS], rtol=0, atol=atol)
    out = expected["out"]
    torch.testing.assert_close(sae.decode(f, expected["x"]), out, rtol=0, atol=1e-6 * out.abs().max().item())


@pytest.mark.parametrize("name", FOLDERS)
def test_activations_by_hand_in_float64(name):
    """On 400 tokens with one component far from zero, as residual streams have them: bias folding must not lose it."""
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(1)) * 2
    x[:, 5] += 30
    f = by_hand(FOLDERS[name], x.double().numpy())
    off = np.abs(load_sae(FOLDERS[name]).encode(x).double().numpy() - f)
    assert (f > 0).any(axis=0).sum() > 4, "an input that hardly activates anything tests nothing"
    near = off < 1e-3 * f.max()
    assert near.mean() == 1.0


@pytest.mark.parametrize(
    ("name", "layer", "hook", "model"),
    [
        ("saelens-jumprelu", 3, "blocks.3.hook_resid_post", "tiny"),
        ("saelens-old-standard", 3, "blocks.4.hook_resid_pre", "tiny"),
        ("saelens-old-topk", 3, "blocks.3.hook_resid_post", "tiny"),
        (GEMMA, 20, "blocks.20.hook_resid_post", "google/gemma-2-2b"),
        (GEMMA_2, 17, "model.layers.17.output", "google/gemma-3-4b-it"),
        (LLAMA, 8, "blocks.8.hook_resid_post", "meta-llama/Llama-3.1-8B"),
        (QWEN, 3, "blocks.3.hook_resid_post", "Qwen/Qwen3-1.7B-Base"),
        (
            "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", 19, "blocks.19.hook_resid_post",
            "meta-llama/Llama-3.1-8B-Instruct",
        ),
        ("dictionary_learning-gated", 3, "blocks.3.hook_resid_post", "org/tiny"),
        ("sparsify/layers.3", 3, "layers.3", None),
    ],
)  # fmt: skip
def test_where_it_reads(name, layer, hook, model):
    sae = load_sae(FOLDERS[name])
    assert (sae.layer, sae.hook, sae.model_name) == (layer, hook, model)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("saelens-gated", "sae_weights.safetensors"), (GEMMA, "params.npz"), (GEMMA_2, "params.safetensors"),
        (LLAMA, "checkpoints/final.safetensors"), (QWEN, "layer3.sae.pt"), ("dictionary_learning-topk", "ae.pt"),
        ("sparsify/layers.3", "sae.safetensors"),
    ],
)  # fmt: skip
def test_the_weight_file_stands_for_its_folder(name, file):
    whole, by_file = load_sae(FOLDERS[name]), load_sae(FOLDERS[name] / file)
    assert torch.equal(whole.W_enc, by_file.W_enc) and whole.layer == by_file.layer


def test_llama_scope_by_decoder_norm(tmp_path):
    """A decoder whose columns have other norms than 1: the threshold is met by activation times norm."""
    folder = copied(LLAMA, tmp_path)
    tensors = load_file(folder / "checkpoints" / "final.safetensors")
    tensors["decoder.weight"] *= torch.linspace(0.2, 4, 16)
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    x = load_file(folder / "expected.safetensors")["x"]
    expected = by_hand(Path(folder.rename(tmp_path / "Llama3_1-8B-Base-L8R-8x")), x.double().numpy())
    f = load_sae(tmp_path / "Llama3_1-8B-Base-L8R-8x").encode(x)
    np.testing.assert_allclose(f.numpy(), expected, atol=1e-5)


def test_qwen_scope_without_its_name_asks_for_k(tmp_path):
    folder = copied(QWEN, tmp_path)
    with pytest.raises(SpecdecError, match="does not say how many features are active: give k"):
        load_sae(folder)
    assert str(load_sae(folder, k=2).activation) == "TopK, k 2"
    with pytest.raises(SpecdecError, match=r"is 17: TopK needs a number of features from 1 to 16"):
        load_sae(folder, k=17)
    shutil.copy(folder / "layer3.sae.pt", folder / "layer4.sae.pt")
    with pytest.raises(SpecdecError, match=r"holds 2 SAEs \(layer3.sae.pt, layer4.sae.pt"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("saelens-topk", "k in .*cfg.json is 4"), (QWEN, "k for .*layer3.sae.pt is 4"),
        ("dictionary_learning-topk", "k in .*ae.pt is 4"), ("sparsify/layers.3", "k in .*cfg.json is 4"),
    ],
)  # fmt: skip
@READERS
def test_another_k_than_the_file_says(name, says, read):
    assert str(read(FOLDERS[name], k=4).activation) == "TopK, k 4"
    with pytest.raises(SpecdecError, match=f"k 5 is given where {says}: leave it out"):
        read(FOLDERS[name], k=5)


@pytest.mark.parametrize("name", ["saelens-standard", "saelens-gated", GEMMA, "dictionary_learning-batchtopk"])
@READERS
def test_k_where_nothing_is_topk(name, read):
    kind = type(read(FOLDERS[name]).activation).__name__
    with pytest.raises(SpecdecError, match=f"k 4 is given for .*, which has no TopK but {kind}: leave it out"):
        read(FOLDERS[name], k=4)


@pytest.mark.parametrize("name", FOLDERS)
def test_an_outline_is_the_sae_without_its_numbers(name):
    whole, outline = load_sae(FOLDERS[name]), outline_sae(FOLDERS[name])
    for one in ("d_in", "num_features", "layer", "hook", "model_name", "format", "path", "normalization"):
        assert getattr(outline, one) == getattr(whole, one)
    assert type(outline.activation) is type(whole.activation)
    for one in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert getattr(outline, one).is_meta and getattr(outline, one).shape == getattr(whole, one).shape


@pytest.mark.parametrize("file", ["sae_weights.safetensors", "params.npz", "layer3.sae.pt"])
def test_an_outline_is_read_from_headers(tmp_path, file):
    """Weights of a megabyte each are written over: nobody has looked, or NaN and wrong checksums would be found."""
    g, layout = torch.Generator().manual_seed(1), [("W_enc", (64, 4096)), ("W_dec", (4096, 64))]
    if file == "layer3.sae.pt":
        layout = [("W_enc", (4096, 64)), ("W_dec", (64, 4096))]
    tensors = {name: torch.randn(*shape, generator=g) for name, shape in layout}
    biases = {"b_enc": torch.zeros(4096), "b_dec": torch.zeros(64), "threshold": torch.ones(4096)}
    if file.endswith(".pt"):
        torch.save(tensors | {name: biases[name] for name in ("b_enc", "b_dec")}, tmp_path / file)
    elif file.endswith(".npz"):
        np.savez(tmp_path / file, **{name: tensor.numpy() for name, tensor in (tensors | biases).items()})
    else:
        save_file(tensors | biases, tmp_path / file)
        (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "jumprelu"}))
    content = (tmp_path / file).read_bytes()
    for tensor in tensors.values():
        stored = tensor.numpy().tobytes()
        assert content.count(stored) == 1
        content = content.replace(stored, b"\xff" * len(stored))
    (tmp_path / file).write_bytes(content)
    k = 8 if file.endswith(".pt") else None
    outline = outline_sae(tmp_path, k)
    assert (outline.d_in, outline.num_features) == (64, 4096)
    with pytest.raises(SpecdecError, match=file):
        load_sae(tmp_path, k)


def test_dictionary_learning_without_its_config(tmp_path):
    for kind in ("standard", "new", "gated", "jumprelu", "matryoshka", "topk"):
        folder = Path(shutil.copytree(FOLDERS[f"dictionary_learning-{kind}"], tmp_path / kind))
        (folder / "config.json").unlink()
        if kind == "topk":
            with pytest.raises(SpecdecError, match=r"may be an AutoEncoderTopK or a BatchTopKSAE: put the config.json"):
                load_sae(folder)
        else:
            expected = load_file(folder / "expected.safetensors")
            torch.testing.assert_close(load_sae(folder).encode(expected["x"]), expected["f"], rtol=0, atol=1e-5)
            assert load_sae(folder).layer is None


def test_dictionary_learning_of_another_place_is_not_the_stream(tmp_path):
    folder = copied("dictionary_learning-standard", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["trainer"]["submodule_name"] = "mlp_out_layer_3"
    (folder / "config.json").write_text(json.dumps(config))
    assert (load_sae(folder).layer, load_sae(folder).hook) == (None, "mlp_out_layer_3")


def test_gemma_scope_by_the_name_of_its_release(tmp_path):
    for release, layer, hook in (
        ("gemma-scope-9b-it-res/layer_9", 9, "blocks.9.hook_resid_post"),
        ("models--google--gemma-scope-2b-pt-mlp/snapshots/1/layer_9", None, "blocks.9.hook_mlp_out"),
        ("gemma-scope-2b-pt-att/layer_9", None, "blocks.9.attn.hook_z"),
        ("gemma-scope-2b-pt-res/embedding", None, "hook_embed"),
        ("nameless/layer_9", None, None),
    ):
        folder = Path(shutil.copytree(FOLDERS[GEMMA], tmp_path / release / "width_16k"))
        assert (load_sae(folder).layer, load_sae(folder).hook) == (layer, hook), release
    assert load_sae(tmp_path / "gemma-scope-9b-it-res/layer_9/width_16k").model_name == "google/gemma-2-9b-it"
    folder = Path(shutil.copytree(FOLDERS[GEMMA], tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_9"))
    with pytest.raises(SpecdecError, match="is of Gemma Scope's transcoders"):
        load_sae(folder)


@READERS
def test_what_is_no_sae(tmp_path, read):
    with pytest.raises(SpecdecError, match=r"no SAE at .*nowhere: check the path"):
        read(tmp_path / "nowhere")
    with pytest.raises(SpecdecError, match=r"it holds nothing; known are saelens \(cfg.json, sae_weights.safetensors"):
        read(tmp_path)
    (tmp_path / "model.safetensors").write_text("x")
    with pytest.raises(SpecdecError, match=r"known format: it holds model.safetensors; known are"):
        read(tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(SpecdecError, match="it holds the tensors weight; known are"):
        read(tmp_path / "a.pt")


class Runs:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@READERS
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, read):
    ran = tmp_path / "ran"
    torch.save({"W_enc": Runs(ran)}, tmp_path / "layer0.sae.pt")
    with pytest.raises(
        SpecdecError, match=r"layer0.sae.pt is a pickle of more than tensors \(it calls posix.mkdir\)"
    ) as error:
        read(tmp_path / "layer0.sae.pt")
    assert "\n" not in str(error.value)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"encoder_linear.weight": Runs(ran)}))
    with pytest.raises(SpecdecError, match=r"plain.pth"):
        read(tmp_path / "plain.pth")
    np.savez(tmp_path / "params.npz", W_enc=np.array([Runs(ran)], dtype=object))
    with pytest.raises(SpecdecError, match=r"params.npz holds Python objects, which could run code"):
        read(tmp_path / "params.npz")
    assert not ran.exists()
    torch.load(tmp_path / "layer0.sae.pt", weights_only=False)
    assert ran.exists(), "the pickle of this test would not have run anything"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("saelens-standard", "sae_weights.safetensors"), ("saelens-standard", "cfg.json"), (GEMMA, "params.npz"),
        (GEMMA_2, "params.safetensors"), (GEMMA_2, "config.json"), (LLAMA, "checkpoints/final.safetensors"),
        (LLAMA, "hyperparams.json"), (QWEN, "layer3.sae.pt"), ("dictionary_learning-gated", "ae.pt"),
        ("sparsify/layers.3", "sae.safetensors"),
    ],
)  # fmt: skip
@READERS
def test_a_file_cut_short(tmp_path, name, file, read):
    folder = copied(name, tmp_path)
    content = (folder / file).read_bytes()
    for left in (len(content) // 2, 10):
        (folder / file).write_bytes(content[:left])
        with pytest.raises(SpecdecError, match=Path(file).name) as error:
            read(folder, k=4)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.pop("W_dec"), r"sae_weights.safetensors lacks the tensor 'W_dec' \(it holds W_enc, b_dec, b_enc"),
        (lambda t: t.update(b_enc=torch.zeros(15)), r"holds 'b_enc' of shape \[15\] where \[16\] is needed"),
        (lambda t: t.update(W_enc=torch.zeros(16)), r"holds 'W_enc' of shape \[16\] where 2 dimensions are needed"),
        (lambda t: t.update(W_dec=t["W_dec"].T.contiguous()), r"'W_dec' of shape \[8, 16\] where \[16, 8\] is needed"),
        (lambda t: t["threshold"].__setitem__(2, float("nan")), "holds NaN or infinity in 'threshold'"),
        (lambda t: t["W_enc"].__setitem__((1, 1), float("inf")), "holds NaN or infinity in 'W_enc'"),
        (lambda t: t.update(scaling_factor=torch.full((16,), 2.0)), "holds a 'scaling_factor' other than 1"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, fault):
    folder = copied("saelens-jumprelu", tmp_path)
    tensors = load_file(folder / "sae_weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "sae_weights.safetensors")
    with pytest.raises(SpecdecError, match=fault):
        load_sae(folder)


@pytest.mark.parametrize(
    ("name", "file", "change", "fault"),
    [
        ("saelens-standard", "cfg.json", {"architecture": "transcoder"}, "architecture 'transcoder': supported are"),
        ("saelens-standard", "cfg.json", {"normalize_activations": "covariance_whitening"}, "'covariance_whitening'"),
        ("saelens-old-standard", "cfg.json", {"activation_fn_str": "tanh-relu"}, "activation 'tanh-relu'"),
        ("saelens-topk", "cfg.json", {"k": 0}, "is 0: TopK needs a number of features from 1 to 16"),
        (GEMMA_2, "config.json", {"hf_hook_point_out": "model.layers.17.mlp"}, "describes a transcoder from"),
        (LLAMA, "hyperparams.json", {"dataset_average_activation_norm": {"in": 0}}, "activation_norm.in 0, where"),
        (LLAMA, "hyperparams.json", {"jump_relu_threshold": None}, "jump_relu_threshold None"),
        (LLAMA, "hyperparams.json", {"hook_point_out": "blocks.8.hook_mlp_out"}, "describes a transcoder from"),
        ("sparsify/layers.3", "cfg.json", {"activation": "groupmax"}, "activation 'groupmax': only plain TopK"),
        ("sparsify/layers.3", "cfg.json", {"transcode": True}, "transcode True"),
        ("dictionary_learning-new", "config.json", {"trainer": {"dict_class": "CrossCoder"}}, "class 'CrossCoder'"),
    ],
)
@READERS
def test_variants_that_are_not_supported(tmp_path, name, file, change, fault, read):
    folder = copied(name, tmp_path)
    config = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(SpecdecError, match=fault):
        read(folder)
