"""dictionary_learning: ae.pt, and config.json with the trainer's settings (github.com/saprmarks/dictionary_learning).

The class stands in config.json (trainer.dict_class); without one, the tensors tell. AutoEncoder, GatedAutoEncoder,
AutoEncoderTopK, BatchTopKSAE and MatryoshkaBatchTopKSAE subtract the decoder's bias from the input; AutoEncoderNew and
JumpReluAutoEncoder do not. BatchTopK is applied with its one threshold, as its `encode` does; AutoEncoderTopK keeps a
threshold too but takes the k largest. Weights are taken as stored: the library's `from_pretrained` also rescales
AutoEncoder's decoder to unit norms.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.steering.activations import Activation, JumpReLU, ReLU, TopK
from specdec.steering.formats.base import Source, check_k, gated, without_bias
from specdec.steering.formats.files import Tensors, read_json
from specdec.steering.hooks import layer_of, output_of
from specdec.steering.sae import SAE

CONFIG = "config.json"
KINDS = (
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)  # fmt: skip
_KEEP_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")


class DictionaryLearning:
    name = "dictionary-learning"
    files = "ae.pt, config.json"

    def fits(self, source: Source) -> bool:
        tensors = source.pickled
        return tensors is not None and (
            ("encoder.weight" in tensors and "decoder.weight" in tensors)
            or ("W_enc" in tensors and "threshold" in tensors)
        )

    def read(self, source: Source) -> SAE:
        tensors = source.pickled
        assert tensors is not None, "fits() was not asked"
        config = tensors.path.with_name(CONFIG)
        trainer = (read_json(config) if config.is_file() else {}).get("trainer") or {}
        kind = str(trainer.get("dict_class") or _kind(tensors))
        if kind not in KINDS:
            raise SpecdecError(f"{config} names the class {kind!r}: supported are {', '.join(KINDS)}")
        W_enc, W_dec = _weights(tensors)
        d, s = W_enc.shape
        b_dec = _one_of(tensors, ("b_dec", "bias", "decoder_bias", "decoder.bias"), d)
        gate = ("gate_bias",) if kind == "GatedAutoEncoder" else ("b_enc", "encoder.bias")
        published = b_enc = _one_of(tensors, gate, s)
        if kind not in _KEEP_BIAS:
            b_enc = without_bias(b_enc, b_dec, W_enc)
        if kind == "GatedAutoEncoder":
            activation: Activation = gated(tensors.take("r_mag", s), tensors.take("mag_bias", s), published, b_enc)
        else:
            activation = _activation(kind, tensors, s, source.k)
        layer, place = trainer.get("layer"), trainer.get("submodule_name")
        hook = output_of(layer) if type(layer) is int and layer >= 0 and _is_stream(place) else place
        return SAE(
            W_enc, b_enc, W_dec, b_dec, activation, self.name, source.path,
            layer=layer_of(hook), hook=hook, model_name=trainer.get("lm_name"),
        )  # fmt: skip


def _kind(tensors: Tensors) -> str:
    if "gate_bias" in tensors:
        return "GatedAutoEncoder"
    if "W_enc" in tensors:
        return "MatryoshkaBatchTopKSAE" if "k" in tensors else "JumpReluAutoEncoder"
    if "k" in tensors:
        raise SpecdecError(
            f"{tensors.path} may be an AutoEncoderTopK or a BatchTopKSAE: put the {CONFIG} that says it beside the file"
        )
    return "AutoEncoderNew" if "decoder.bias" in tensors else "AutoEncoder"


def _weights(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """W_enc [d, s], W_dec [s, d], from parameters or from nn.Linear's transposed ones."""
    if "W_enc" in tensors:
        d, s = tensors.shape("W_enc", 2)
        return tensors.take("W_enc", d, s), tensors.take("W_dec", s, d)
    s, d = tensors.shape("encoder.weight", 2)
    encoder, decoder = tensors.take("encoder.weight", s, d), tensors.take("decoder.weight", d, s)
    return encoder.T.contiguous(), decoder.T.contiguous()


def _one_of(tensors: Tensors, names: Sequence[str], size: int) -> Tensor:
    """The first of these that the file has; the sentence about a missing one names the first."""
    return tensors.take(next((name for name in names if name in tensors), names[0]), size)


def _activation(kind: str, tensors: Tensors, s: int, k: int | None) -> Activation:
    if kind == "JumpReluAutoEncoder":
        return JumpReLU(tensors.take("threshold", s))
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return JumpReLU(torch.full((s,), tensors.take("threshold").item()))
    if kind == "AutoEncoderTopK":
        said = int(tensors.take("k").item()) if "k" in tensors or k is None else None
        return TopK(check_k(k, said, s, f"k in {tensors.path}"))
    return ReLU()


def _is_stream(place: str | None) -> bool:
    """The trainers call the residual stream by many names, resid_post_layer_8 the usual one, or do not name it."""
    return place is None or place.startswith("resid_post")
