"""The MTP head as a vLLM model: what `--speculative-config '{"method": "mtp", "model": HEAD}'` loads.

One step, for the token at position j + 1 and the target's (or the head's own previous) hidden state at j:
    x = decoder_layer(eh_proj([enorm(embedding), hnorm(hidden)]));  hidden' = norm(x);  logits = lm_head(hidden')
`hidden'`, after the norm, is what the next step is fed with. The decoder layer is vLLM's own of the target's family,
built from the target's own config, so its attention shares the engine's paged KV cache.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper

from specdec.engines.vllm.families import DECODER_LAYERS
from specdec.errors import SpecdecError

STACKED: dict[str, Any] = {
    ".q_proj": (".qkv_proj", "q"),
    ".k_proj": (".qkv_proj", "k"),
    ".v_proj": (".qkv_proj", "v"),
    ".gate_proj": (".gate_up_proj", 0),
    ".up_proj": (".gate_up_proj", 1),
}


@support_torch_compile
class MTPStep(nn.Module):
    """The trained part of the head."""

    embed_tokens: nn.Module  # the target's, set by the proposer after loading

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        speculative: Any = vllm_config.speculative_config
        head = speculative.draft_model_config.hf_config
        target = speculative.target_model_config.hf_text_config
        d, eps = head.hidden_size, target.rms_norm_eps
        self.enorm = RMSNorm(d, eps=eps)
        self.hnorm = RMSNorm(d, eps=eps)
        self.eh_proj = ReplicatedLinear(2 * d, d, bias=False, return_bias=False, prefix=f"{prefix}.eh_proj")
        # The engine reads a layer's index from its name; the head's one layer follows the target's last.
        index = speculative.target_model_config.get_total_num_hidden_layers()
        make_layer = DECODER_LAYERS.get(head.target_family)
        self.layer = make_layer(vllm_config, target, f"{prefix}.layers.{index}")
        self.norm = RMSNorm(d, eps=eps)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        embeddings = self.enorm(self.embed_tokens(input_ids))
        x = self.eh_proj(torch.cat((embeddings, self.hnorm(hidden_states)), dim=-1))
        x, residual = self.layer(positions, x, None)
        x, _ = self.norm(x, residual)
        return x


class SpecdecMTPHead(nn.Module):
    """Registered with vLLM as architecture `SpecdecMTPHead`."""

    lm_head: nn.Module  # the target's, set by the proposer after loading
    logits_are_linear = True  # in the hidden states: no norm, bias or cap on the way

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        speculative: Any = vllm_config.speculative_config
        self.config = speculative.draft_model_config.hf_config
        self.model = MTPStep(vllm_config=vllm_config, prefix="model")
        self.logits_processor = LogitsProcessor(self.config.vocab_size)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        intermediate_tensors: object = None,
        inputs_embeds: torch.Tensor | None = None,
        spec_step_idx: int = 0,
    ) -> torch.Tensor:
        return self.model(input_ids, positions, hidden_states)

    def compute_logits(self, hidden_states: torch.Tensor, spec_step_idx: int = 0) -> torch.Tensor | None:
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        mapper = WeightsMapper(orig_to_new_prefix={"": "model."}, orig_to_new_stacked=STACKED)
        loaded = AutoWeightsLoader(self).load_weights(weights, mapper=mapper)
        missing = sorted(set(dict(self.named_parameters())) - loaded)
        if missing:
            raise SpecdecError(f"the MTP head's checkpoint lacks {', '.join(missing)}; train or export the head again")
        return loaded
