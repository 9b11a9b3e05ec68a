"""Gemma Scope 2: config.json and params.safetensors with the tensors of Gemma Scope in small letters. JumpReLU; b_dec
stays out. config.json names the place as Hugging Face does: "model.layers.17.output".
"""

from specdec.errors import SpecdecError
from specdec.steering.activations import JumpReLU
from specdec.steering.formats.base import SafetensorsFormat, Source
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE


class GemmaScope2(SafetensorsFormat):
    name = "gemma-scope-2"
    weights, config = "params.safetensors", "config.json"

    def read(self, source: Source) -> SAE:
        config, tensors, place = self.opened(source)
        self._check(config, place)
        d, s = tensors.shape("w_enc", 2)
        hook = config.get("hf_hook_point_in")
        return SAE(
            tensors.take("w_enc", d, s), tensors.take("b_enc", s), tensors.take("w_dec", s, d),
            tensors.take("b_dec", d), JumpReLU(tensors.take("threshold", s)), self.name, source.path,
            layer=layer_of(hook), hook=hook, model_name=config.get("model_name"),
        )  # fmt: skip

    def _check(self, config: dict[str, object], place: object) -> None:
        if config.get("architecture") not in ("jump_relu", None):
            raise SpecdecError(
                f"{place} describes an SAE of the architecture {config['architecture']!r}, not jump_relu"
            )
        if config.get("hf_hook_point_out") not in (None, config.get("hf_hook_point_in")):
            raise SpecdecError(
                f"{place} describes a transcoder from {config.get('hf_hook_point_in')} to "
                f"{config['hf_hook_point_out']}: give an SAE, which reads and writes the same place"
            )
