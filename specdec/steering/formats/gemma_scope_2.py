"""Gemma Scope 2: config.json and params.safetensors with the tensors of Gemma Scope in small letters. JumpReLU; b_dec
stays out. config.json names the place as Hugging Face does: "model.layers.17.output".
"""

from specdec.errors import SpecdecError
from specdec.steering.activations import JumpReLU
from specdec.steering.formats.base import Source
from specdec.steering.formats.files import read_json, read_safetensors
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE

WEIGHTS, CONFIG = "params.safetensors", "config.json"


class GemmaScope2:
    name = "gemma-scope-2"
    files = f"{CONFIG}, {WEIGHTS}"

    def fits(self, source: Source) -> bool:
        return source.weights(WEIGHTS) is not None

    def read(self, source: Source) -> SAE:
        path = source.weights(WEIGHTS)
        assert path is not None, "fits() was not asked"
        config, tensors = read_json(path.with_name(CONFIG)), read_safetensors(path)
        self._check(config, path.with_name(CONFIG))
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
