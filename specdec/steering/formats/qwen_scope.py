"""Qwen-Scope: layer{n}.sae.pt with W_enc [s, d], W_dec [d, s], b_enc, b_dec. TopK; b_dec stays out.

The number of active features stands in the name of the release only: Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50.
"""

from specdec.errors import SpecdecError
from specdec.steering.activations import TopK
from specdec.steering.formats.base import Source, check_k
from specdec.steering.hooks import layer_of, output_of
from specdec.steering.sae import SAE


class QwenScope:
    name = "qwen-scope"
    files = "layer{n}.sae.pt with W_enc, b_enc, W_dec, b_dec"

    def fits(self, source: Source) -> bool:
        tensors = source.pickled
        if tensors is None or "threshold" in tensors:
            return False
        return all(name in tensors for name in ("W_enc", "b_enc", "W_dec", "b_dec"))

    def read(self, source: Source) -> SAE:
        tensors = source.pickled
        assert tensors is not None, "fits() was not asked"
        s, d = tensors.shape("W_enc", 2)
        if tensors.shape("b_enc", 1) != (s,):
            raise SpecdecError(
                f"{tensors.path} holds W_enc of shape {[s, d]} and b_enc of shape {list(tensors.shape('b_enc', 1))}: "
                "Qwen-Scope's W_enc has one row for each feature; copy the SAE again"
            )
        file = Source(tensors.path)
        layer, model = file.in_path(r"^layer(\d+)\.sae\.pt$"), file.in_path(r"SAE-Res-(.+)-W\d+K-L0_(\d+)")
        hook = output_of(int(layer[1])) if layer else None
        return SAE(
            tensors.take("W_enc", s, d).T.contiguous(), tensors.take("b_enc", s),
            tensors.take("W_dec", d, s).T.contiguous(), tensors.take("b_dec", d),
            TopK(self._k(source.k, int(model[2]) if model else None, s, file)), self.name, source.path,
            layer=layer_of(hook), hook=hook, model_name=f"Qwen/{model[1]}" if model else None,
        )  # fmt: skip

    def _k(self, wanted: int | None, named: int | None, num_features: int, file: Source) -> int:
        if wanted is None and named is None:
            raise SpecdecError(
                f"{file.path} does not say how many features are active: give k (50 or 100 in Qwen-Scope), or keep the "
                "file in a folder of its release's name (ending in L0_50)"
            )
        return check_k(wanted, named, num_features, f"k for {file.path}")
