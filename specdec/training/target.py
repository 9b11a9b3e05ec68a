"""The frozen target: where hidden states, teacher logits, embeddings and the LM head come from."""

import contextlib
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from specdec.heads.families import family_of
from specdec.heads.target_config import load_config, unusable
from specdec.training.data import Windows


class _ReachedLayer(Exception):
    """Ends a forward pass behind the layer that was asked for."""


def stream_of(output: Any) -> Tensor:
    """The residual stream in what a decoder layer of transformers returns: it, or a tuple that begins with it."""
    stream: Tensor = output[0] if isinstance(output, tuple) else output
    return stream


class Target:
    """A causal language model loaded from a local folder, in eval mode, without gradients."""

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> None:
        self.config = load_config(folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except Exception as error:
            raise unusable(folder, error) from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
        self.before_norm = family_of(self.config).step.target_states == "pre_norm"
        self.recurrent = "linear_attention" in (getattr(self.config, "layer_types", None) or ())
        self.device = torch.device(device)
        self.weight: Tensor = self.model.lm_head.weight

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over some numbers of every weight: training the model on, or another one, changes it."""
        digest = hashlib.sha256()
        for name, weight in self.model.named_parameters():
            some = weight.flatten()[:: max(1, weight.numel() // 64)].float().cpu()
            digest.update(f"{name} {tuple(weight.shape)}".encode() + some.numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def hidden(self, windows: Windows, layer: int | None = None) -> Tensor:
        """The states [B, T, d] that engines hand a head, in the model's type: those behind the target's final norm, or
        before it where the family's engines do that. Attention and positions stay within each document.

        layer: the residual stream behind that decoder layer (0-based) instead; the layers above it are not run."""
        if windows.one_document_each():
            return self._states(windows.tokens, windows.position_ids(), layer)
        if self.recurrent:
            return self._apart(windows, layer)
        same = windows.documents[:, :, None] == windows.documents[:, None, :]
        return self._states(windows.tokens, windows.position_ids(), layer, same.tril()[:, None])

    def _states(
        self, tokens: Tensor, position_ids: Tensor, layer: int | None = None, mask: Tensor | None = None
    ) -> Tensor:
        kept: list[Tensor] = []

        def reached(module: Any, inputs: Any, output: Any) -> None:
            kept.append(stream_of(output))
            raise _ReachedLayer

        if layer is None:
            hook = self.model.model.norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        else:
            hook = self.model.model.layers[layer].register_forward_hook(reached)
        with hook, contextlib.suppress(_ReachedLayer):
            out = self.model.model(
                input_ids=tokens.to(self.device), attention_mask=None if mask is None else mask.to(self.device),
                position_ids=position_ids.to(self.device), use_cache=False,
            )  # fmt: skip
        states: Tensor = kept[0] if self.before_norm or layer is not None else out.last_hidden_state
        return states

    def _apart(self, windows: Windows, layer: int | None = None) -> Tensor:
        """Each document in a row of its own, padded behind: a recurrent layer obeys no mask between documents."""
        positions = windows.position_ids()
        row = (positions == 0).flatten().cumsum(0) - 1
        place = positions.flatten()
        tokens = torch.zeros(int(row[-1]) + 1, int(place.max()) + 1, dtype=windows.tokens.dtype)
        tokens[row, place] = windows.tokens.flatten()
        states = self._states(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), layer)
        return states[row.to(self.device), place.to(self.device)].view(*windows.tokens.shape, -1)

    @torch.no_grad()
    def normed(self, hidden: Tensor) -> Tensor:
        """What the LM head reads of `hidden`'s states [..., d]."""
        if not self.before_norm:
            return hidden
        normed: Tensor = self.model.model.norm(hidden)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """LM head: states behind the norm [..., d] -> [..., V] in the model's type; gradients flow to `hidden`."""
        return F.linear(hidden.to(self.weight.dtype), self.weight, self.model.lm_head.bias)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings [..., d] float32 of tokens [...]."""
        out: Tensor = self.model.model.embed_tokens(tokens.to(self.device))
        return out.float()
