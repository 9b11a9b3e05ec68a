"""SAELens: cfg.json and sae_weights.safetensors (github.com/decoderesearch/SAELens; layouts up to 5 and from 6 on).

Before 6, cfg.json has everything side by side, TopK stands in activation_fn_str, and the decoder's bias is subtracted
from the input unless apply_b_dec_to_input says otherwise. From 6 on, what is about the model is under `metadata`.
BatchTopK is trained as such and saved as JumpReLU. `expected_average_only_in` is folded into the weights when training
ends, so nothing is left to do for it here, as in SAELens itself.
"""

from typing import Any

from specdec.errors import SpecdecError
from specdec.steering.activations import Activation, JumpReLU, ReLU, TopK
from specdec.steering.formats.base import SafetensorsFormat, Source, check_k, gated, without_bias
from specdec.steering.formats.files import Tensors
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE, Normalization

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk")
_NORMALIZATIONS: dict[Any, Normalization] = {
    None: "none", False: "none", True: "none", "none": "none", "expected_average_only_in": "none",
    "layer_norm": "layer_norm", "constant_norm_rescale": "norm",
}  # fmt: skip


class SAELens(SafetensorsFormat):
    name = "saelens"
    weights, config = WEIGHTS, CONFIG

    def read(self, source: Source) -> SAE:
        config, tensors, place = self.opened(source)
        metadata = config.get("metadata")
        about = config | (metadata if isinstance(metadata, dict) else {})
        kind = self._kind(config, str(place))
        normalization = config.get("normalize_activations")
        if normalization not in _NORMALIZATIONS:
            raise SpecdecError(
                f"{place} asks for normalize_activations {normalization!r}: supported are none, "
                "expected_average_only_in, layer_norm and constant_norm_rescale"
            )
        d, s = tensors.shape("W_enc", 2)
        W_enc, W_dec = tensors.take("W_enc", d, s), tensors.take("W_dec", s, d)
        b_dec = tensors.take("b_dec", d)
        self._check_unscaled(tensors)
        published = bias = tensors.take("b_gate" if kind == "gated" else "b_enc", s)
        if kind == "topk" and config.get("rescale_acts_by_decoder_norm"):
            norms = W_dec.norm(dim=1)
            W_enc, bias, W_dec = W_enc * norms, bias * norms, W_dec / norms[:, None]
        if config.get("apply_b_dec_to_input", True):
            bias = without_bias(bias, b_dec, W_enc)
        if kind == "gated":
            activation: Activation = gated(tensors.take("r_mag", s), tensors.take("b_mag", s), published, bias)
        else:
            activation = self._activation(kind, config, tensors, s, source, str(place))
        hook = about.get("hook_name") or about.get("hook_point")
        return SAE(
            W_enc, bias, W_dec, b_dec, activation, self.name, source.path, _NORMALIZATIONS[normalization],
            layer_of(hook), hook, about.get("model_name"),
        )  # fmt: skip

    def _kind(self, config: dict[str, Any], place: str) -> str:
        kind = config.get("architecture", "standard")
        if kind == "standard" and self._function(config) == "topk":
            kind = "topk"
        if kind not in ARCHITECTURES:
            raise SpecdecError(
                f"{place} describes an SAE of the architecture {kind!r}: supported are {', '.join(ARCHITECTURES)} "
                "(save BatchTopK SAEs for inference, as jumprelu)"
            )
        if kind == "standard" and self._function(config) != "relu":
            raise SpecdecError(f"{place} asks for the activation {self._function(config)!r}: supported are relu, topk")
        return str(kind)

    def _function(self, config: dict[str, Any]) -> str:
        return str(config.get("activation_fn_str") or config.get("activation_fn") or "relu")

    def _activation(
        self, kind: str, config: dict[str, Any], tensors: Tensors, s: int, source: Source, place: str
    ) -> Activation:
        if kind == "jumprelu":
            return JumpReLU(tensors.take("threshold", s))
        if kind == "topk":
            old = (config.get("activation_fn_kwargs") or {}).get("k")
            return TopK(check_k(source.k, config.get("k", old), s, f"k in {place}"))
        return ReLU()

    def _check_unscaled(self, tensors: Tensors) -> None:
        for name in ("scaling_factor", "finetuning_scaling_factor"):
            if name in tensors and not tensors.all_ones(name):
                raise SpecdecError(
                    f"{tensors.path} holds a {name!r} other than 1 (finetuned decoder scales): this is not supported, "
                    "multiply it into W_dec"
                )
