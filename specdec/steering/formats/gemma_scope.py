"""Gemma Scope: params.npz with W_enc, b_enc, W_dec, b_dec, threshold (arXiv 2408.05147). JumpReLU; b_dec stays out.

Layer and place stand in the names of the release and its folders only:
google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71. Without the release's name the place is not known: its
others read attention's and the MLP's outputs, or map one to the other (transcoders).
"""

from specdec.errors import SpecdecError
from specdec.steering.activations import JumpReLU
from specdec.steering.formats.base import Source
from specdec.steering.formats.files import read_npz
from specdec.steering.hooks import layer_of
from specdec.steering.sae import SAE

WEIGHTS = "params.npz"
_PLACES = {"res": "hook_resid_post", "att": "attn.hook_z", "mlp": "hook_mlp_out"}  # by the end of a release's name


class GemmaScope:
    name = "gemma-scope"
    files = WEIGHTS

    def fits(self, source: Source) -> bool:
        return source.weights(WEIGHTS) is not None

    def read(self, source: Source) -> SAE:
        path = source.weights(WEIGHTS)
        assert path is not None, "fits() was not asked"
        tensors = read_npz(path, source.outline)
        d, s = tensors.shape("W_enc", 2)
        release = source.in_path(r"gemma-scope-(\d+b)-(pt|it)-(\w+)")
        hook = self._hook(source, release[3] if release else None)
        return SAE(
            tensors.take("W_enc", d, s), tensors.take("b_enc", s), tensors.take("W_dec", s, d),
            tensors.take("b_dec", d), JumpReLU(tensors.take("threshold", s)), self.name, source.path,
            layer=layer_of(hook), hook=hook,
            model_name=f"google/gemma-2-{release[1]}" + ("-it" if release[2] == "it" else "") if release else None,
        )  # fmt: skip

    def _hook(self, source: Source, place: str | None) -> str | None:
        if place is not None and place not in _PLACES:
            raise SpecdecError(f"{source.path} is of Gemma Scope's {place}: use a release of SAEs, best one of -res")
        if source.in_path(r"^embedding$"):
            return "hook_embed"
        layer = source.in_path(r"^layer_(\d+)$")
        return f"blocks.{layer[1]}.{_PLACES[place]}" if layer and place else None
