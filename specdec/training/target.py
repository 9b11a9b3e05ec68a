"""The frozen target: where hidden states, teacher logits, embeddings and the LM head come from."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from specdec.errors import SpecdecError
from specdec.heads.families import family_of
from specdec.training.data import Windows


def load_config(folder: str | Path) -> Any:
    """The configuration of the model in a local folder. SpecdecError: none there, damaged, an unsupported family."""
    if not (Path(folder) / "config.json").is_file():
        raise SpecdecError(f"there is no model at {folder}: give a folder with config.json, weights and tokenizer")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise _unusable(folder, error) from error
    family_of(config)
    return config


def _unusable(folder: str | Path, error: Exception) -> SpecdecError:
    """transformers raises a dozen kinds; all of them mean that the folder is not usable."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return SpecdecError(f"the model at {folder} cannot be loaded ({first}): check the folder")


class Target:
    """A causal language model loaded from a local folder, in eval mode, without gradients."""

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> None:
        self.config = load_config(folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except Exception as error:
            raise _unusable(folder, error) from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
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
    def hidden(self, windows: Windows) -> Tensor:
        """Final-norm hidden states [B, T, d] in the model's type; attention and positions stay within each document."""
        mask = None
        if not windows.one_document_each():
            same = windows.documents[:, :, None] == windows.documents[:, None, :]
            mask = same.tril()[:, None].to(self.device)
        out = self.model.model(
            input_ids=windows.tokens.to(self.device), attention_mask=mask,
            position_ids=windows.position_ids().to(self.device), use_cache=False,
        )  # fmt: skip
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """LM head: [..., d] -> [..., V] in the model's type; gradients flow to `hidden`."""
        return F.linear(hidden.to(self.weight.dtype), self.weight, self.model.lm_head.bias)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings [..., d] float32 of tokens [...]."""
        out: Tensor = self.model.model.embed_tokens(tokens.to(self.device))
        return out.float()
