"""Training must see the cache that serving has: `unroll` against a head served token by token with a real KV cache."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from specdec.heads import HeadConfig, MTPHead, unroll
from specdec.heads.module import init_random
from tests.helpers.native_models import NATIVE_FAMILIES, SIZES
from tests.helpers.tiny_models import FAMILIES, make_config

STEPS = 4
# bebop.md's table, read in vLLM's models: [hidden, embedding] for MiMo alone, no embedding at position 0 for two.
HIDDEN_FIRST, ZERO_FIRST = {"mimo"}, {"mimo", "deepseek_v3"}


def make_head(family: str, layout: str | None = None) -> MTPHead:
    torch.manual_seed(1)
    config = make_config(family, **SIZES.get(family, {}))
    if family == "deepseek_v3":  # as released: rotation and scores scaled for a longer context
        config = make_config(family, **SIZES[family], rope_parameters=YARN)
    head = MTPHead(HeadConfig.for_target(config, layout))
    init_random(head, std=0.15 if layout == "eagle" else 0.3)  # without norms, states would grow step by step
    for parameter in head.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    return head.eval()


YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32,
    "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip


def serve(head: MTPHead, embeddings: torch.Tensor, hidden: torch.Tensor, anchor: int, steps: int, first: int = 0):
    """Serves one request that starts at `first`: a pass over the true inputs up to the anchor, then the chain.

    embeddings, hidden [T, d]. Uses transformers' own forward of the layer with its DynamicCache, nothing of ours.
    """
    layer, cache, outs = head.layer, DynamicCache(), []
    layer.self_attn.config._attn_implementation = "eager"
    family = head.config.target_family

    def run(embedding, state, positions):
        if family in ZERO_FIRST:
            embedding = torch.where(positions[:, None] == 0, 0.0, embedding)
        halves = [head.enorm(embedding), head.hnorm(state)]
        x = head.eh_proj(torch.cat(halves[::-1] if family in HIDDEN_FIRST else halves, -1))[None]
        seen, new = cache.get_seq_length(), x.shape[1]
        mask = torch.full((new, seen + new), float("-inf")).triu(seen + 1)[None, None]
        cos_sin = head.rotary(x, positions[None])
        x = layer(x, attention_mask=mask, past_key_values=cache, use_cache=True, position_embeddings=cos_sin)
        return head.norm(x)[0]

    true = slice(first, anchor + 1)
    state = run(embeddings[first + 1 : anchor + 2], hidden[true], torch.arange(anchor + 1 - first))[-1:]
    outs.append(state[0])
    for k in range(2, steps + 1):
        state = run(embeddings[anchor + k : anchor + k + 1], state, torch.tensor([anchor - first + k - 1]))
        outs.append(state[0])
    return torch.stack(outs)


@pytest.mark.parametrize("family", [*FAMILIES, *NATIVE_FAMILIES, "eagle"])
@torch.no_grad()
def test_training_sees_the_cache_of_serving(family):
    head = make_head("qwen3", "eagle") if family == "eagle" else make_head(family)
    width = head.config.hidden_size
    embeddings, hidden = torch.randn(2, 24, width), torch.randn(2, 24, width)
    lm_head = torch.randn(257, width) / width**0.5
    outs = torch.stack(unroll(head, embeddings, hidden, STEPS, torch.arange(24)[None]), dim=2)
    for row in range(2):
        for anchor in (0, 1, 7, 19):
            served = serve(head, embeddings[row], hidden[row], anchor, STEPS) @ lm_head.T
            scale = served.abs().max().item()  # float32, through experts, gates, and in EAGLE's case no norm at all
            torch.testing.assert_close(outs[row, anchor] @ lm_head.T, served, rtol=0, atol=3e-5 * scale)


@pytest.mark.parametrize("family", ["llama", "mimo"])  # mimo: each document has a position 0
@torch.no_grad()
def test_documents_in_one_window_are_served_apart(family):
    """The second document's chains must not see the first, and count positions from their own start."""
    head = make_head(family)
    width = head.config.hidden_size
    embeddings, hidden = torch.randn(1, 24, width), torch.randn(1, 24, width)
    documents = (torch.arange(24) >= 10).long()[None]
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    outs = torch.stack(unroll(head, embeddings, hidden, STEPS, positions, documents), dim=2)
    for anchor, first in ((3, 0), (10, 10), (15, 10)):
        served = serve(head, embeddings[0], hidden[0], anchor, STEPS, first)
        torch.testing.assert_close(outs[0, anchor], served, rtol=1e-5, atol=1e-5)


def test_later_steps_reach_back_to_the_first_steps_weights():
    """The gradient runs through the recycled post-norm state and through the chain's own cache entries."""
    head = make_head("qwen3")
    hidden = torch.randn(1, 12, 32, requires_grad=True)
    unroll(head, torch.randn(1, 12, 32), hidden, 3, torch.arange(12)[None])[2][0, 5].sum().backward()
    reached = hidden.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [j <= 5 for j in range(12)]
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_recomputing_changes_memory_alone(monkeypatch):
    """Outputs and gradients bit for bit; each step runs once more in the backward pass, and not without gradients."""
    head, calls = make_head("qwen2"), []
    plain = head.combine
    monkeypatch.setattr(head, "combine", lambda *inputs: calls.append(1) or plain(*inputs))
    inputs = torch.randn(2, 12, 32), torch.randn(2, 12, 32)

    def run():
        calls.clear()
        head.zero_grad()
        outs = torch.stack(head(*inputs, STEPS, torch.arange(12)[None]))
        outs.sin().sum().backward()
        return outs.detach(), [p.grad.clone() for p in head.parameters()], len(calls)

    kept = run()
    head.recompute = True
    recomputed = run()
    assert torch.equal(kept[0], recomputed[0]) and all(map(torch.equal, kept[1], recomputed[1]))
    assert (kept[2], recomputed[2]) == (STEPS, 2 * STEPS)
    with torch.no_grad():
        head(*inputs, STEPS, torch.arange(12)[None])
    assert len(calls) == 3 * STEPS
