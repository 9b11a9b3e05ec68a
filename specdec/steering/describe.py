"""What an SAE is, in facts for people and for JSON."""

from typing import Any

from specdec.steering.activations import JumpReLU, TopK
from specdec.steering.sae import SAE


def describe(sae: SAE) -> dict[str, Any]:
    """format, kind (of activation) and its k or thresholds, d, features, layer, hook, model, norms of decoder rows."""
    norms = sae.W_dec.norm(dim=1)
    facts: dict[str, Any] = {"format": sae.format, "kind": str(sae.activation)}
    if isinstance(sae.activation, TopK):
        facts["k"] = sae.activation.k
    if isinstance(sae.activation, JumpReLU):
        threshold = sae.activation.threshold
        facts |= {"lowest_threshold": _rounded(threshold.min()), "highest_threshold": _rounded(threshold.max())}
    return facts | {
        "d": sae.d_in,
        "features": sae.num_features,
        "layer": sae.layer,
        "hook": sae.hook,
        "model_name": sae.model_name,
        "input_normalised": sae.normalization,
        "lowest_decoder_norm": _rounded(norms.min()),
        "highest_decoder_norm": _rounded(norms.max()),
    }


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")
