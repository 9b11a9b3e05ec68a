"""The frozen target: where hidden states, teacher logits, embeddings and the LM head come from."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from specdec.errors import SpecdecError
from specdec.heads.families import family_of
from specdec.training.data import Windows


class Target:
    """A causal language model loaded from a local folder, in eval mode, without gradients."""

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> None:
        if not (Path(folder) / "config.json").is_file():
            raise SpecdecError(f"there is no model at {folder}: give a folder with config.json, weights and tokenizer")
        try:
            self.config = AutoConfig.from_pretrained(folder, local_files_only=True)
            family_of(self.config)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except SpecdecError:
            raise
        except Exception as error:  # transformers raises a dozen kinds; all of them mean the folder is not usable
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SpecdecError(f"the model at {folder} cannot be loaded ({first}): check the folder") from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.weight: Tensor = self.model.lm_head.weight

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
