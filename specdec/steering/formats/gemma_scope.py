"""Gemma Scope: params.npz with W_enc, b_enc, W_dec, b_dec, threshold (arXiv 2408.05147). JumpReLU; b_dec stays out.

Layer and place stand in the names of the release and its folders only:
google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71.
"""

from specdec.steering.activations import JumpReLU
from specdec.steering.formats.base import Source
from specdec.steering.formats.files import read_npz
from specdec.steering.hooks import layer_of, output_of
from specdec.steering.sae import SAE

WEIGHTS = "params.npz"
_ELSEWHERE = {"att": "attn.hook_z", "mlp": "hook_mlp_out"}  # releases that read other places; `res`: the stream


class GemmaScope:
    name = "gemma-scope"
    files = WEIGHTS

    def fits(self, source: Source) -> bool:
        return source.weights(WEIGHTS) is not None

    def read(self, source: Source) -> SAE:
        path = source.weights(WEIGHTS)
        assert path is not None, "fits() was not asked"
        tensors = read_npz(path)
        d, s = tensors.shape("W_enc", 2)
        hook = self._hook(source)
        model = source.in_path(r"gemma-scope-(\d+b)-(pt|it)-")
        return SAE(
            tensors.take("W_enc", d, s), tensors.take("b_enc", s), tensors.take("W_dec", s, d),
            tensors.take("b_dec", d), JumpReLU(tensors.take("threshold", s)), self.name, source.path,
            layer=layer_of(hook), hook=hook,
            model_name=f"google/gemma-2-{model[1]}" + ("-it" if model[2] == "it" else "") if model else None,
        )  # fmt: skip

    def _hook(self, source: Source) -> str | None:
        if source.in_path(r"^embedding$"):
            return "hook_embed"
        if not (layer := source.in_path(r"^layer_(\d+)$")):
            return None
        place = source.in_path(r"gemma-scope-\d+b-(?:pt|it)-(att|mlp)\b")
        return f"blocks.{layer[1]}.{_ELSEWHERE[place[1]]}" if place else output_of(int(layer[1]))
