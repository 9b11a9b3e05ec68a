"""The target's states in packed windows must be those of each document served alone."""

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.training.data import TokenStream
from specdec.training.target import Target
from tests.helpers.native_models import SIZES
from tests.helpers.tiny_models import FAMILIES, make_target

CHANGES = {
    "mimo": SIZES["mimo"],
    "deepseek_v3": SIZES["deepseek_v3"],
    "qwen3_next": SIZES["qwen3_next"] | {"layer_types": ["linear_attention", "full_attention"]},
}


@pytest.mark.parametrize("family", [*FAMILIES, *CHANGES])
@torch.no_grad()
def test_documents_do_not_see_each_other(tmp_path, family):
    target = Target(make_target(tmp_path, family, **CHANGES.get(family, {})), torch.float32)
    assert target.recurrent == (family == "qwen3_next")
    stream = TokenStream.pack([[5, 6, 7, 8], [9, 10, 11]], start=0)
    windows = stream.windows(torch.tensor([0, 1]), 8)  # the second begins within a document
    packed = target.normed(target.hidden(windows))
    for row, document, tokens in ((0, slice(0, 5), slice(0, 5)), (1, slice(4, 8), slice(5, 9))):
        alone = target.model.model(stream.tokens[None, tokens]).last_hidden_state[0]
        torch.testing.assert_close(packed[row, document], alone, rtol=1e-4, atol=1e-5)
    logits = target.model(stream.tokens[None, :5]).logits[0]
    torch.testing.assert_close(target.logits(packed[0, :5]), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_states_before_the_final_norm(tmp_path):
    """What vLLM's MiMo hands its MTP layer."""
    target = Target(make_target(tmp_path, "mimo", **SIZES["mimo"]), torch.float32)
    windows = TokenStream.pack([[5, 6, 7, 8]], start=0).windows(torch.tensor([0]), 5)
    states = target.model.model(windows.tokens, output_hidden_states=True).hidden_states
    layer = target.model.model.layers[-1]
    rotary = target.model.model.rotary_emb(states[-2], windows.position_ids())
    mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
    expected = layer(states[-2], attention_mask=mask, position_embeddings=rotary)
    torch.testing.assert_close(target.hidden(windows), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(target.hidden(windows), states[-1], atol=0.1)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mimo", "qwen3_next"])
@torch.no_grad()
def test_stream_behind_a_layer(tmp_path, family):
    """Against transformers' own hidden states, where entry L + 1 is what layer L returns, before the final norm."""
    target = Target(make_target(tmp_path, family, **CHANGES.get(family, {})), torch.float32)
    windows = TokenStream.pack([[5, 6, 7, 8], [9, 10, 11]], start=0).windows(torch.tensor([0, 1]), 8)
    states = target.model.model(windows.tokens[:1, :5], output_hidden_states=True).hidden_states
    torch.testing.assert_close(target.hidden(windows, layer=0)[0, :5], states[1][0], rtol=1e-4, atol=1e-5)
    last = target.model.model.norm(target.hidden(windows, layer=1))  # the last of two
    torch.testing.assert_close(last, target.normed(target.hidden(windows)), rtol=1e-4, atol=1e-5)


def test_unsupported_family(tmp_path):
    make_target(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(SpecdecError, match="Unknown target family 'gpt2'"):
        Target(tmp_path)
