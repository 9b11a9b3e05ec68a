"""Lossless verification of draft tokens, and the sampling of drafts from the same distribution."""

from specdec.verify.api import backends, sample_draft, verify
from specdec.verify.types import Draft, VerifyOutput

__all__ = ["Draft", "VerifyOutput", "backends", "sample_draft", "verify"]
