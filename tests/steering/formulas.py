"""Feature activations by hand in float64, straight from the stored files: one function for each convention.

Written from the papers and the libraries' documentation, apart from the package's readers: they fold, these do not.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


def relu(x):
    return np.maximum(x, 0.0)


def top_k(pre, k):
    kept = np.argsort(-pre, axis=-1)[..., :k]
    out = np.zeros_like(pre)
    np.put_along_axis(out, kept, relu(np.take_along_axis(pre, kept, -1)), -1)
    return out


def gated(x, W_enc, b_gate, r_mag, b_mag):
    return (x @ W_enc + b_gate > 0) * relu(x @ (W_enc * np.exp(r_mag)) + b_mag)


def jump(pre, threshold):
    return relu(pre) * (pre > threshold)


def by_hand(folder: Path, x: np.ndarray) -> np.ndarray:
    """f [n, s] of x [n, d] for one of the folders in files/."""
    name = folder.name
    if "saelens" in name:
        return _saelens(folder, x)
    if "dictionary_learning" in name:
        return _dictionary_learning(folder, x)
    return {
        "layers.3": _sparsify, "average_l0_71": _gemma_scope, "layer_17_width_16k_l0_medium": _gemma_scope_2,
        "Llama3_1-8B-Base-L8R-8x": _llama_scope, "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4": _qwen_scope,
        "Llama-3.1-8B-Instruct-SAE-l19": _goodfire,
    }[name](folder, x)  # fmt: skip


def _wide(tensors):
    return {k: v.double().numpy() for k, v in tensors.items()}


def _saelens(folder, x):
    t, config = _wide(load_file(folder / "sae_weights.safetensors")), json.loads((folder / "cfg.json").read_text())
    if config.get("normalize_activations") == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
        x = x / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    if config.get("normalize_activations") == "constant_norm_rescale":
        x = x * np.sqrt(x.shape[-1]) / np.linalg.norm(x, axis=-1, keepdims=True)
    if config.get("apply_b_dec_to_input", True):
        x = x - t["b_dec"]
    if config["architecture"] == "gated":
        return gated(x, t["W_enc"], t["b_gate"], t["r_mag"], t["b_mag"])
    pre = x @ t["W_enc"] + t["b_enc"]
    if config["architecture"] == "jumprelu":
        return jump(pre, t["threshold"])
    if config["architecture"] == "topk" or config.get("activation_fn_str") == "topk":
        scale = np.linalg.norm(t["W_dec"], axis=-1) if config.get("rescale_acts_by_decoder_norm") else 1.0
        return top_k(pre * scale, config.get("k") or config["activation_fn_kwargs"]["k"])
    return relu(pre)


def _dictionary_learning(folder, x):
    t = _wide(torch.load(folder / "ae.pt", weights_only=True))
    kind = folder.name.removeprefix("dictionary_learning-")
    if kind == "standard":
        return relu((x - t["bias"]) @ t["encoder.weight"].T + t["encoder.bias"])
    if kind == "new":
        return relu(x @ t["encoder.weight"].T + t["encoder.bias"])
    if kind == "gated":
        return gated(x - t["decoder_bias"], t["encoder.weight"].T, t["gate_bias"], t["r_mag"], t["mag_bias"])
    if kind == "jumprelu":
        return jump(x @ t["W_enc"] + t["b_enc"], t["threshold"])
    if kind == "matryoshka":
        return jump((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"], t["threshold"])
    pre = (x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]
    return top_k(pre, int(t["k"])) if kind == "topk" else jump(pre, t["threshold"])


def _sparsify(folder, x):
    t, config = _wide(load_file(folder / "sae.safetensors")), json.loads((folder / "cfg.json").read_text())
    return top_k((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], config["k"])


def _gemma_scope(folder, x):
    t = {k: v.astype(np.float64) for k, v in np.load(folder / "params.npz").items()}
    return jump(x @ t["W_enc"] + t["b_enc"], t["threshold"])


def _gemma_scope_2(folder, x):
    t = _wide(load_file(folder / "params.safetensors"))
    return jump(x @ t["w_enc"] + t["b_enc"], t["threshold"])


def _llama_scope(folder, x):
    """As training left it: on inputs of average norm sqrt(d); the threshold holds for unscaled inputs."""
    t = _wide(load_file(folder / "checkpoints" / "final.safetensors"))
    config = json.loads((folder / "hyperparams.json").read_text())
    c = np.sqrt(config["d_model"]) / config["dataset_average_activation_norm"]["in"]
    pre = x @ t["encoder.weight"].T + t["encoder.bias"] / c
    active = pre * np.linalg.norm(t["decoder.weight"], axis=0) > config["jump_relu_threshold"]
    return c * relu(pre) * active


def _qwen_scope(folder, x):
    t = _wide(torch.load(folder / "layer3.sae.pt", weights_only=True))
    return top_k(x @ t["W_enc"].T + t["b_enc"], 4)


def _goodfire(folder, x):
    t = _wide(torch.load(next(folder.glob("*.pth")), weights_only=True))
    return relu(x @ t["encoder_linear.weight"].T + t["encoder_linear.bias"])
