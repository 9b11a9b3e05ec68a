"""Writing an SAE in SAELens' layout (from version 6 on), so that other tools read it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from specdec.files import replace_file
from specdec.steering.activations import JumpReLU
from specdec.steering.formats.saelens import CONFIG, WEIGHTS
from specdec.steering.sae import SAE


def save_sae(sae: SAE, folder: Path, dtype: torch.dtype = torch.float32, about: dict[str, Any] | None = None) -> None:
    """Writes the folder, weights first; about: beside model and hook in cfg.json's metadata.

    For JumpReLU SAEs with plain inputs, which is what training makes. The decoder's bias is folded into b_enc, so
    cfg.json says that it is not subtracted.
    """
    assert isinstance(sae.activation, JumpReLU) and not sae.layer_norm, "only what training makes is written"
    tensors = {
        "W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec,
        "threshold": sae.activation.threshold,
    }  # fmt: skip
    config = {
        "architecture": "jumprelu", "d_in": sae.d_in, "d_sae": sae.num_features,
        "dtype": str(dtype).removeprefix("torch."), "device": "cpu", "apply_b_dec_to_input": False,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",  # of the layout; without it SAELens takes the file for an older one
            "model_name": sae.model_name, "hook_name": sae.hook, "hook_head_index": None, **(about or {}),
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    replace_file(folder / WEIGHTS, save(whole))
    replace_file(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
