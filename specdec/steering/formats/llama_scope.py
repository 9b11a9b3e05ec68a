"""Llama Scope: hyperparams.json and checkpoints/final.safetensors (arXiv 2410.20526), weights as in nn.Linear.

Trained on inputs scaled by c = sqrt(d) / dataset_average_activation_norm.in, which is folded in here. The one JumpReLU
threshold was set when training had ended, on weights standardised for unscaled inputs and decoder columns of norm 1.
The published weights' pre-activations are c times as large, so for them it is c * threshold, over the column's norm
where sparsity_include_decoder_norm is set. (The published thresholds bear this out: over the layers they grow in
proportion to the average norm.) b_dec is not subtracted unless apply_decoder_bias_to_pre_encoder is set.
"""

from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.steering.activations import JumpReLU
from specdec.steering.formats.base import SafetensorsFormat, Source, without_bias
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE


class LlamaScope(SafetensorsFormat):
    name = "llama-scope"
    weights, config = "checkpoints/final.safetensors", "hyperparams.json"

    def read(self, source: Source) -> SAE:
        config, tensors, place = self.opened(source)
        s, d = tensors.shape("encoder.weight", 2)
        threshold, scale = _number(config, "jump_relu_threshold", place), _scale(config, d, place)
        self._check(config, place)
        W_enc = tensors.take("encoder.weight", s, d).T.contiguous()
        W_dec = tensors.take("decoder.weight", d, s).T.contiguous()
        b_enc, b_dec = tensors.take("encoder.bias", s), tensors.take("decoder.bias", d)
        thresholds = W_dec.new_full((s,), scale * threshold)
        if config.get("sparsity_include_decoder_norm"):
            thresholds /= W_dec.norm(dim=1)
        if config.get("apply_decoder_bias_to_pre_encoder"):
            b_enc = without_bias(b_enc, b_dec, W_enc)
        hook = config.get("hook_point_in")
        model = source.in_path(r"Llama3_1-8B-(Base|Instruct)")
        return SAE(
            W_enc * scale, b_enc, W_dec / scale, b_dec / scale, JumpReLU(thresholds), self.name, source.path,
            layer=layer_of(hook), hook=hook,
            model_name=f"meta-llama/Llama-3.1-8B{'-Instruct' if model[1] == 'Instruct' else ''}" if model else None,
        )  # fmt: skip

    def _check(self, config: dict[str, Any], place: Path) -> None:
        if config.get("act_fn", "jumprelu") != "jumprelu":
            raise SpecdecError(f"{place} asks for the activation {config['act_fn']!r}: only jumprelu is supported")
        if config.get("hook_point_out", config.get("hook_point_in")) != config.get("hook_point_in"):
            raise SpecdecError(
                f"{place} describes a transcoder from {config.get('hook_point_in')} to {config['hook_point_out']}: "
                "give an SAE, which reads and writes the same place"
            )


def _scale(config: dict[str, Any], width: int, place: Path) -> float:
    norms = config.get("dataset_average_activation_norm")
    return float(width**0.5 / _number(norms if isinstance(norms, dict) else {}, "in", place))


def _number(config: dict[str, Any], name: str, place: Path) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        within = "dataset_average_activation_norm." if name == "in" else ""
        raise SpecdecError(f"{place} has {within}{name} {value!r}, where a number above 0 is needed")
    return float(value)
