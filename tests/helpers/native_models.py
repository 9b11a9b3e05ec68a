"""Targets of a few thousand random parameters that bring an MTP layer, under the names that released checkpoints use.

The names are written down here once more, from the model cards and vLLM's loaders, so that a test of ours that reads
them does not read them with the table it tests.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import specdec.heads.families.mimo  # noqa: F401  transformers has no MiMo of its own
from tests.helpers.tiny_models import make_target

# Sizes that vLLM's kernels for CPUs have: heads of 32; latent attention of 512 + 64.
_GATED = {
    "head_dim": 32, "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["full_attention", "full_attention"], "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
}  # fmt: skip
_EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
}  # fmt: skip
SIZES: dict[str, dict] = {
    "mimo": {
        "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "tie_word_embeddings": False, "num_nextn_predict_layers": 1,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4, "kv_lora_rank": 512, "q_lora_rank": 16, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 32, "v_head_dim": 32, "head_dim": 64, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        "tie_word_embeddings": False, "num_nextn_predict_layers": 1, "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "qwen3_next": {**_GATED, **_EXPERTS, "num_nextn_predict_layers": 1},
    "qwen3_5_text": {**_GATED, "mtp_num_hidden_layers": 1},
    "qwen3_5_moe_text": {**_GATED, **_EXPERTS, "mtp_num_hidden_layers": 1},
}  # fmt: skip
NATIVE_FAMILIES = tuple(SIZES)
_QWEN_MTP = ("mtp.", "layers.0.", "fc", ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"))
# prefix; of the decoder layer behind it; the projection; norms
_NAMES = {
    "mimo": ("model.mtp_layers.0.", "", "input_proj", ("token_layernorm", "hidden_layernorm", "final_layernorm")),
    "deepseek_v3": ("model.layers.2.", "", "eh_proj", ("enorm", "hnorm", "shared_head.norm")),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _QWEN_MTP),
}


def make_native(
    folder: Path, family: str, dtype: torch.dtype = torch.float32, shards: int = 1, mtp: bool = True, **changes
) -> Path:
    """Writes a random target of this family with its MTP layer (mtp) in so many files, and a tokenizer."""
    make_target(folder, family, **{**SIZES[family], **changes})
    tensors = load_file(folder / "model.safetensors")
    if mtp:
        tensors |= _mtp_tensors(family, tensors)
    tensors = {
        k: v if k.endswith("e_score_correction_bias") else v.to(dtype) for k, v in sorted(tensors.items())
    }  # fmt: skip
    _write(folder, tensors, shards)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": str(dtype).removeprefix("torch."), "torch_dtype": str(dtype).removeprefix("torch.")}
    if family == "mimo":  # released with code; what vLLM reads it with
        config["auto_map"] = {"AutoConfig": "configuration_mimo.MiMoConfig"}
        (folder / "configuration_mimo.py").write_text(
            "from transformers import Qwen2Config\n\n\nclass MiMoConfig(Qwen2Config):\n"
            '    model_type = "mimo"\n    num_nextn_predict_layers: int = 0\n'
        )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def mtp_names(tensors: dict[str, Tensor], family: str) -> list[str]:
    """Those of the MTP layer among a checkpoint's tensors."""
    return [name for name in tensors if name.startswith(_NAMES[family][0])]


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Every tensor that the index names (or the one file holds), from the file that it names."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return load_file(folder / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    files = {file: load_file(folder / file) for file in set(weight_map.values())}
    assert {name for tensors in files.values() for name in tensors} == set(weight_map), "files and index disagree"
    return {name: files[file][name] for name, file in weight_map.items()}


def _mtp_tensors(family: str, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random tensors, of the shapes of the target's last layer."""
    prefix, layer, projection, norms = _NAMES[family]
    generator = torch.Generator().manual_seed(5)

    def like(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        return 0.3 * noise if tensor.ndim > 1 else tensor.mean() + 0.2 * noise

    found = {
        prefix + layer + name.removeprefix("model.layers.1."): like(tensor)
        for name, tensor in sorted(target.items())
        if name.startswith("model.layers.1.")
    }
    found |= {f"{prefix}{norm}.weight": like(target["model.norm.weight"]) for norm in norms}
    width = len(target["model.norm.weight"])
    found[f"{prefix}{projection}.weight"] = like(torch.empty(width, 2 * width))
    if family == "deepseek_v3":
        found[f"{prefix}embed_tokens.weight"] = target["model.embed_tokens.weight"].clone()
        found[f"{prefix}shared_head.head.weight"] = target["lm_head.weight"].clone()
    return found


def _write(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    (folder / "model.safetensors").unlink()
    names, weight_map = list(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
