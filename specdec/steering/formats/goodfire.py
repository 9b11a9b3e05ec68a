"""Goodfire: one .pth or .pt file with encoder_linear and decoder_linear, as nn.Linear has them. ReLU; b_dec stays out.

Model and layer stand in the file's name only: Llama-3.1-8B-Instruct-SAE-l19.pth.
"""

from specdec.steering.activations import ReLU
from specdec.steering.formats.base import Source
from specdec.steering.hooks import layer_of, output_of
from specdec.steering.sae import SAE


class Goodfire:
    name = "goodfire"
    files = "a .pth file with encoder_linear, decoder_linear"

    def fits(self, source: Source) -> bool:
        return source.pickled is not None and "encoder_linear.weight" in source.pickled

    def read(self, source: Source) -> SAE:
        tensors = source.pickled
        assert tensors is not None, "fits() was not asked"
        s, d = tensors.shape("encoder_linear.weight", 2)
        named = Source(tensors.path).in_path(r"^(.+)-SAE-l(\d+)")
        hook = output_of(int(named[2])) if named else None
        return SAE(
            tensors.take("encoder_linear.weight", s, d).T.contiguous(), tensors.take("encoder_linear.bias", s),
            tensors.take("decoder_linear.weight", d, s).T.contiguous(), tensors.take("decoder_linear.bias", d),
            ReLU(), self.name, source.path,
            layer=layer_of(hook), hook=hook, model_name=f"meta-llama/{named[1]}" if named else None,
        )  # fmt: skip
