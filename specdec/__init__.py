"""Speculative decoding for vLLM: trained multi-token-prediction heads, lossless verification, acceptance metrics.

Importing the package itself loads nothing heavy: engines load their plugins in every process.
"""

__version__ = "0.1.0"
