"""The internal form, on cases small enough to work by hand."""

from pathlib import Path

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.steering import SAE, load_sae
from specdec.steering.activations import Gated, JumpReLU, ReLU, TopK
from specdec.steering.fit import misfit
from specdec.steering.hooks import layer_of

FILES = Path(__file__).parent / "files"
PRE = torch.tensor([[-1.0, 0.5, 2.0, 3.0], [4.0, -2.0, 1.0, 0.0]])


def test_activations_by_hand():
    assert ReLU()(PRE).tolist() == [[0, 0.5, 2, 3], [4, 0, 1, 0]]
    assert JumpReLU(torch.tensor([-2.0, 0.5, 1.0, 3.5]))(PRE).tolist() == [[0, 0, 2, 0], [4, 0, 0, 0]]
    assert TopK(2)(PRE).tolist() == [[0, 0, 2, 3], [4, 0, 1, 0]]
    assert TopK(3)(torch.tensor([[-1.0, -2.0, -3.0, 5.0]])).tolist() == [[0, 0, 0, 5]]
    # Gate open where pre > 0; u = pre - b_gate; magnitude 2u + b_mag, rectified.
    r_mag, b_mag, b_gate = torch.full((4,), 2.0).log(), torch.tensor([0.0, 9.0, -5.0, 1.0]), torch.ones(4)
    expected = torch.tensor([[0.0, 8.0, 0.0, 5.0], [6.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(Gated(r_mag, b_mag, b_gate)(PRE), expected)


@pytest.mark.parametrize("name", ["saelens-standard", "saelens-jumprelu", "saelens-gated", "saelens-topk"])
def test_one_feature_alone(name):
    """of_one's numbers give what encode gives, for every feature and token."""
    sae = load_sae(FILES / name)
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 3
    f, u = sae.encode(x), x @ sae.W_enc
    if sae.activation.needs_all:
        for call in (lambda: sae.activation.of_one(0), lambda: sae.activation.of(u[:, :1], torch.tensor([0]))):
            with pytest.raises(TypeError):
                call()
        return
    for j in range(16):
        gain, bias, threshold = sae.activation.of_one(j)
        magnitude = gain * u[:, j] + (sae.b_enc[j] if bias is None else bias)
        alone = magnitude.relu() * (u[:, j] + sae.b_enc[j] > threshold)
        torch.testing.assert_close(alone, f[:, j], rtol=1e-5, atol=1e-5)


def test_sigma_is_what_a_change_of_features_is_multiplied_by():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    for name in ("saelens-layer-norm", "saelens-norm", "saelens-standard"):
        sae = load_sae(FILES / name)
        f = sae.encode(x)
        changed = f.clone()
        changed[:, 4] += 2.5
        moved = sae.decode(changed, x) - sae.decode(f, x)
        assert sae.sigma(x).shape == (20, 1) and sae.layer_norm == (name != "saelens-standard")
        torch.testing.assert_close(moved, sae.sigma(x) * 2.5 * sae.W_dec[4], rtol=1e-4, atol=1e-5)
    with pytest.raises(SpecdecError, match=r"give decode\(f, x\) the input x"):
        load_sae(FILES / "saelens-layer-norm").decode(f)


@pytest.mark.parametrize("name", ["saelens-gated", "saelens-jumprelu", "saelens-topk"])
def test_in_another_type(name):
    sae = load_sae(FILES / name)
    wide = sae.to("cpu", torch.float64)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    assert wide.encode(x).dtype == torch.float64 and sae.encode(x.bfloat16()).dtype == torch.float32
    assert wide.encode(x).shape == (2, 3, 16) and wide.decode(wide.encode(x)).shape == (2, 3, 8)
    torch.testing.assert_close(wide.encode(x).float(), sae.encode(x), rtol=1e-5, atol=1e-5)
    assert sae.W_enc.dtype == torch.float32, "to() makes another SAE"


def test_hooks():
    outputs = ("blocks.7.hook_resid_post", "blocks.8.hook_resid_pre", "model.layers.7.output", "layers.7", "h.7",
               "gpt_neox.layers.7", "model.layers.8.input", "blocks.7.hook_out", "blocks.8.hook_in")  # fmt: skip
    assert {layer_of(hook) for hook in outputs} == {7}
    others = ("blocks.0.hook_resid_pre", "hook_embed", "blocks.7.hook_mlp_out", "blocks.7.attn.hook_z", "layers.7.mlp",
              "blocks.7.hook_resid_mid", "embed_tokens", None)  # fmt: skip
    assert {layer_of(hook) for hook in others} == {None}


def test_fit():
    parts = (torch.zeros(8, 16), torch.zeros(16), torch.zeros(16, 8), torch.zeros(8), ReLU(), "saelens", Path("a"))
    config = {"hidden_size": 8, "num_hidden_layers": 4}
    assert misfit(SAE(*parts, layer=3), config) is None
    assert "reads layer 4, the model has layers 0 to 3" in str(misfit(SAE(*parts, layer=4), config))
    assert "of 8 numbers, the model's have 9" in str(misfit(SAE(*parts, layer=3), config | {"hidden_size": 9}))
    assert "(it reads hook_embed)" in str(misfit(SAE(*parts, hook="hook_embed"), config))
    assert "do not say where" in str(misfit(SAE(*parts), config))
