"""Makes the folders beside it: small SAEs written and applied by the libraries that defined their formats.

    python make.py FOLDER
Not run by the tests. Needs sae-lens, dictionary-learning and eai-sparsify in an environment of their own; README.md has
the versions.
Each folder has expected.safetensors: x [5, 8], what the library's encode makes of it (f [5, 16]) and its decode (out).
Releases that only their authors' training code writes (Gemma Scope, Llama Scope, Qwen-Scope, Goodfire) are written here
by hand, in the published layout, and applied by SAELens' loaders for them, which find the files here, not on a hub.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

nnsight = types.ModuleType(
    "nnsight"
)  # dictionary_learning imports it for collecting activations, which is not done here
nnsight.LanguageModel = object
sys.modules.setdefault("nnsight", nnsight)

import sae_lens.loading.pretrained_sae_loaders as loaders  # noqa: E402
from dictionary_learning import dictionary as dl  # noqa: E402
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE  # noqa: E402
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE  # noqa: E402
from dictionary_learning.trainers.top_k import AutoEncoderTopK  # noqa: E402
from sae_lens import SAE  # noqa: E402
from sae_lens.registry import get_sae_class  # noqa: E402
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig  # noqa: E402
from sae_lens.saes.sae import SAEMetadata  # noqa: E402
from sparsify import SparseCoder, SparseCoderConfig  # noqa: E402

D, S, K = 8, 16, 4
OUT = Path(sys.argv[1])
META = {"model_name": "tiny", "hook_name": "blocks.3.hook_resid_post", "hook_head_index": None, "prepend_bos": True}


def numbers(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def inputs() -> torch.Tensor:
    """Away from zero mean, as residual streams are."""
    return numbers(7, 5, D, scale=2.0) + numbers(8, D)


@torch.no_grad()
def expect(folder: Path, encode, decode) -> None:
    x = inputs()
    f = encode(x)
    assert 0 < (f > 0).float().mean() < 1, f"{folder} tests no activation"
    save_file({"x": x, "f": f.contiguous(), "out": decode(f).contiguous()}, folder / "expected.safetensors")


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Every parameter random; thresholds and decoder norms unlike each other and positive."""
    for i, (name, p) in enumerate(module.named_parameters()):
        p.data = numbers(seed + i, *p.shape, scale=0.4)
        if name == "threshold":
            p.data = p.data.abs() + 0.1


def saelens(name: str, architecture: str, **config) -> None:
    cls, config_cls = get_sae_class(architecture)
    sae = cls(config_cls(d_in=D, d_sae=S, metadata=SAEMetadata(**META), **config))
    randomise(sae, 20)
    sae.save_model(OUT / name)
    expect(OUT / name, sae.encode, sae.decode)


def saelens_batchtopk() -> None:
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=S, k=K, metadata=SAEMetadata(**META)))
    randomise(sae, 40)
    sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    folder = OUT / "saelens-batchtopk"
    sae.save_inference_model(folder)
    loaded = SAE.load_from_disk(folder)
    expect(folder, loaded.encode, loaded.decode)


def saelens_old(name: str, **config) -> None:
    """The layout before version 6, as its releases have it."""
    folder = OUT / name
    folder.mkdir(parents=True)
    save_file({"W_enc": numbers(1, D, S), "b_enc": numbers(2, S), "W_dec": numbers(3, S, D), "b_dec": numbers(4, D)},
              folder / "sae_weights.safetensors")  # fmt: skip
    cfg = {"d_in": D, "d_sae": S, "dtype": "torch.float32", "device": "cpu", "model_name": "tiny", "hook_layer": 3,
           "context_size": 128, "sae_lens_training_version": None, **config}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))
    sae = SAE.load_from_disk(folder)
    expect(folder, sae.encode, sae.decode)


def dictionary_learning(name: str, model, submodule: str = "resid_post_layer_3") -> None:
    folder = OUT / f"dictionary_learning-{name}"
    folder.mkdir(parents=True)
    randomise(model, 60)
    torch.save(model.state_dict(), folder / "ae.pt")
    trainer = {"dict_class": type(model).__name__, "activation_dim": D, "dict_size": S, "layer": 3, "k": K,
               "lm_name": "org/tiny", "submodule_name": submodule}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    expect(folder, model.encode, model.decode)


def sparsify() -> None:
    folder = OUT / "sparsify" / "layers.3"
    coder = SparseCoder(D, SparseCoderConfig(num_latents=S, k=K))
    randomise(coder, 80)
    coder.save_to_disk(folder)

    def encode(x):
        acts, ids, _ = coder.encode(x)
        return torch.zeros(len(x), S).scatter_(-1, ids, acts)

    expect(folder, encode, lambda f: f @ coder.W_dec + coder.b_dec)


def by_loader(folder: Path, loader, repo: str, name: str, scale: float | None = None, **overrides) -> None:
    """What SAELens makes of files in the published layout."""
    loaders.hf_hub_download = lambda repo_id, filename, subfolder=None, force_download=False: str(
        OUT / repo_id / (subfolder or "") / filename
    )
    loaders.get_safetensors_tensor_shapes = lambda repo_id, filename: {
        k: list(v.shape) for k, v in loaders.load_safetensors_weights(OUT / repo_id / filename).items()
    }
    cfg, state, _ = loader(repo, name, device="cpu", cfg_overrides={"d_in": D, "d_sae": S, **overrides})
    cfg = loaders.handle_config_defaulting(cfg)
    cls, config_cls = get_sae_class(cfg["architecture"])
    sae = cls(config_cls.from_dict(cfg))
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict({k: v.contiguous() for k, v in state.items()})
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    expect(folder, sae.encode, sae.decode)


def gemma_scope() -> None:
    repo, name = "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"
    folder = OUT / repo / name
    folder.mkdir(parents=True)
    threshold = numbers(5, S).abs() * 0.5
    np.savez(folder / "params.npz", W_enc=numbers(1, D, S), b_enc=numbers(2, S), W_dec=numbers(3, S, D),
             b_dec=numbers(4, D), threshold=threshold)  # fmt: skip
    by_loader(folder, loaders.gemma_2_sae_huggingface_loader, repo, name)


def gemma_scope_2() -> None:
    repo, name = "google/gemma-scope-2-4b-it", "resid_post/layer_17_width_16k_l0_medium"
    folder = OUT / repo / name
    folder.mkdir(parents=True)
    save_file({"w_enc": numbers(1, D, S), "b_enc": numbers(2, S), "w_dec": numbers(3, S, D), "b_dec": numbers(4, D),
               "threshold": numbers(5, S).abs() * 0.5}, folder / "params.safetensors")  # fmt: skip
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-4b-it", "width": S, "type": "sae",
              "hf_hook_point_in": "model.layers.17.output", "hf_hook_point_out": "model.layers.17.output"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    by_loader(folder, loaders.gemma_3_sae_huggingface_loader, repo, name)


def llama_scope() -> None:
    repo, name = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L8R-8x"
    folder = OUT / repo / name
    (folder / "checkpoints").mkdir(parents=True)
    decoder = numbers(3, D, S)
    tensors = {"encoder.weight": numbers(1, S, D), "encoder.bias": numbers(2, S),
               "decoder.weight": decoder / decoder.norm(dim=0), "decoder.bias": numbers(4, D)}  # fmt: skip
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    norm = 1.75
    config = {"d_model": D, "d_sae": S, "act_fn": "jumprelu", "jump_relu_threshold": 0.5, "top_k": 50,
              "hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": "blocks.8.hook_resid_post",
              "dataset_average_activation_norm": {"in": norm, "out": norm}, "norm_activation": "dataset-wise",
              "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False}  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(config))
    loader = loaders.llama_scope_sae_huggingface_loader
    by_loader(folder, loader, repo, name, scale=D**0.5 / norm, dtype="float32")


def qwen_scope() -> None:
    repo, name = f"Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}", "layer3.sae.pt"
    folder = OUT / repo
    folder.mkdir(parents=True)
    torch.save({"W_enc": numbers(1, S, D), "W_dec": numbers(2, D, S), "b_enc": numbers(3, S), "b_dec": numbers(4, D)},
               folder / name)  # fmt: skip
    by_loader(folder, loaders.qwen_scope_sae_huggingface_loader, repo, name)


def goodfire() -> None:
    repo, name = "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"
    folder = OUT / repo
    folder.mkdir(parents=True)
    encoder, decoder = torch.nn.Linear(D, S), torch.nn.Linear(S, D)
    state = {f"encoder_linear.{k}": numbers(9, *v.shape) for k, v in encoder.state_dict().items()}
    state |= {f"decoder_linear.{k}": numbers(11, *v.shape) for k, v in decoder.state_dict().items()}
    torch.save(state, folder / name)
    by_loader(folder, loaders.get_goodfire_huggingface_loader, repo, name)


def main() -> None:
    saelens("saelens-standard", "standard")
    saelens("saelens-standard-bias-kept", "standard", apply_b_dec_to_input=False)
    saelens("saelens-layer-norm", "jumprelu", normalize_activations="layer_norm")
    saelens("saelens-norm", "standard", normalize_activations="constant_norm_rescale")
    saelens("saelens-gated", "gated")
    saelens("saelens-jumprelu", "jumprelu", apply_b_dec_to_input=False)
    saelens("saelens-topk", "topk", k=K)
    saelens("saelens-topk-rescaled", "topk", k=K, rescale_acts_by_decoder_norm=True)
    saelens_batchtopk()
    saelens_old("saelens-old-standard", architecture="standard", hook_name="blocks.4.hook_resid_pre",
                activation_fn_str="relu", normalize_activations="expected_average_only_in")  # fmt: skip
    saelens_old("saelens-old-topk", architecture="standard", hook_point="blocks.3.hook_resid_post",
                activation_fn_str="topk", activation_fn_kwargs={"k": K}, apply_b_dec_to_input=False)  # fmt: skip
    dictionary_learning("standard", dl.AutoEncoder(D, S))
    dictionary_learning("new", dl.AutoEncoderNew(D, S))
    dictionary_learning("gated", dl.GatedAutoEncoder(D, S))
    dictionary_learning("jumprelu", dl.JumpReluAutoEncoder(D, S))
    dictionary_learning("topk", AutoEncoderTopK(D, S, K))
    for name, model in (("batchtopk", BatchTopKSAE(D, S, K)), ("matryoshka", MatryoshkaBatchTopKSAE(D, S, K, [4, 12]))):
        model.threshold = torch.tensor(0.6)
        dictionary_learning(name, model)
    sparsify()
    gemma_scope()
    gemma_scope_2()
    llama_scope()
    qwen_scope()
    goodfire()


main()
