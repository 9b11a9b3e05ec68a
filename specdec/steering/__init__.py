"""Sparse autoencoders (SAEs) of a model's residual stream: reading them, steering by them."""

from specdec.steering.formats import load_sae, outline_sae
from specdec.steering.sae import SAE

__all__ = ["SAE", "load_sae", "outline_sae"]
