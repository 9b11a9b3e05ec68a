"""sparsify (EleutherAI; formerly `sae`): cfg.json and sae.safetensors in a folder named after the module it reads.

TopK of the rectified pre-activations; the encoder as nn.Linear has it, the decoder [s, d]; b_dec is subtracted from the
input. A folder "layers.12" is the output of decoder layer 12.
"""

from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.steering.activations import TopK
from specdec.steering.formats.base import SafetensorsFormat, Source, check_k, without_bias
from specdec.steering.formats.files import read_json
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE


class Sparsify(SafetensorsFormat):
    name = "sparsify"
    weights, config = "sae.safetensors", "cfg.json"

    def read(self, source: Source) -> SAE:
        config, tensors, place = self.opened(source)
        self._check(config, place)
        s, d = tensors.shape("encoder.weight", 2)
        W_enc = tensors.take("encoder.weight", s, d).T.contiguous()
        b_dec = tensors.take("b_dec", d)
        hook = place.absolute().parent.name
        return SAE(
            W_enc, without_bias(tensors.take("encoder.bias", s), b_dec, W_enc), tensors.take("W_dec", s, d), b_dec,
            TopK(check_k(source.k, config.get("k"), s, f"k in {place}")), self.name, source.path,
            layer=layer_of(hook), hook=hook, model_name=_model_name(place),
        )  # fmt: skip

    def _check(self, config: dict[str, Any], place: Path) -> None:
        unsupported = {
            "activation": config.get("activation", "topk") != "topk",
            **{name: bool(config.get(name)) for name in ("transcode", "skip_connection", "signed")},
        }
        for name, wrong in unsupported.items():
            if wrong:
                raise SpecdecError(f"{place} has {name} {config[name]!r}: only plain TopK SAEs are supported")


def _model_name(place: Path) -> str | None:
    """The run's config.json stands one folder up, where the whole release was copied."""
    config = place.absolute().parent.parent / "config.json"
    name = read_json(config).get("model") if config.is_file() else None
    return name if isinstance(name, str) else None
