"""Fused losses against the eager ones on full logits: values and gradients, in float64 unless the type is the matter.

Vocabularies and block sizes are odd, and each sweep takes several blocks and several slices: boundaries are where a
chunked sum goes wrong.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specdec.errors import SpecdecError
from specdec.training import losses
from specdec.training.fused import FUSED, chunked, divergences, linear_e2e_tv, linear_kl, linear_tv, step_losses, sweep

N, K, D, V = 13, 3, 10, 203


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """16 rows and 64 tokens at a time: 39 rows and 203 tokens end in a part of a block and of a slice."""
    monkeypatch.setitem(sweep.BUFFER_BYTES, "cpu", 1)
    monkeypatch.setattr(chunked, "SLICE_ELEMENTS", 0)
    monkeypatch.setattr(chunked, "MIN_SLICE", 64)


def problem(dtype=torch.float64, d_target=D, seed=0):
    """Draft hidden [N, K, D], target hidden [N, K, d_target], weights [V, D], [V, d_target]."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((N, K, D), (N, K, d_target), (V, D), (V, d_target))
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def eager(name, h, t, w, w_target, temperature=1.0):
    return losses.STEP_LOSSES[name](h @ w.T / temperature, t @ w_target.T / temperature, None)


def gradients(loss, *leaves):
    """Of a sum with different weights for all its terms, as a mean would hide rows that are mixed up."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = loss(*leaves)
    (value * torch.arange(1, value.numel() + 1, dtype=value.dtype).view_as(value)).sum().backward()
    return value.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_same_as_eager(name, temperature):
    h, t, w, w_target = problem(d_target=7)
    expected = gradients(lambda h: eager(name, h, t, w, w_target, temperature), h)
    found = gradients(lambda h: step_losses(name, h, t, w, w_target, temperature=temperature)[0], h)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", FUSED)
def test_a_weight_that_learns(name):
    """The head's own LM head, and one that is the target's too: the target's side sends nothing back to it."""
    h, t, w, w_target = problem()
    expected = gradients(lambda h, w: eager(name, h, t, w, w_target), h, w)
    torch.testing.assert_close(gradients(lambda h, w: step_losses(name, h, t, w, w_target)[0], h, w), expected)
    alone = gradients(lambda w: step_losses(name, h, t, w, w_target)[0], w)
    torch.testing.assert_close(alone, (expected[0], expected[2]))
    expected = gradients(lambda h, w: eager(name, h, t, w, w), h, w)
    torch.testing.assert_close(gradients(lambda h, w: step_losses(name, h, t, w)[0], h, w), expected)


def test_public_functions():
    h, t, w, _ = problem()
    z, s = h @ w.T, t @ w.T
    torch.testing.assert_close(linear_tv(h, t, w), losses.tv(z, s))
    torch.testing.assert_close(linear_e2e_tv(h, t, w), losses.e2e_tv(z, s))
    torch.testing.assert_close(linear_kl(h, t, w), losses.kl(z, s))
    alpha, kl = divergences(h[0, 0], t[0, 0], w, wanted=("alpha", "kl"))  # a single row
    torch.testing.assert_close((alpha, kl), (losses.acceptance(z, s)[0, 0], losses.kl(z, s)[0, 0]))


def test_closed_forms():
    h, t, w, _ = problem()
    q, p = (h @ w.T).softmax(-1), (t @ w.T).softmax(-1)
    low = (q <= p).double()
    scale = torch.arange(1, N * K + 1, dtype=q.dtype).view(N, K, 1)
    found = gradients(lambda h: linear_tv(h, t, w), h)[1]
    torch.testing.assert_close(found, scale * (-q * (low - (low * q).sum(-1, keepdim=True))) @ w)
    torch.testing.assert_close(gradients(lambda h: linear_kl(h, t, w), h)[1], scale * (q - p) @ w)


@pytest.mark.parametrize("name", ["kl", "tv", "e2e-tv", "neg-log-alpha"])  # lk-hybrid holds its weight fixed
def test_gradients_against_finite_differences(name):
    h, t, w, _ = problem()
    inputs = h[:2, :, :4].clone().requires_grad_(), w[:9, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda h, w: step_losses(name, h, t[:2], w, problem()[2][:9])[0], inputs)


def test_each_row_its_temperature():
    h, t, w, _ = problem()
    temperature = torch.linspace(0.3, 2.0, N * K, dtype=h.dtype).view(N, K)
    expected = gradients(lambda h: eager("tv", h, t, w, w, temperature[..., None]), h)
    torch.testing.assert_close(gradients(lambda h: linear_tv(h, t, w, temperature=temperature), h), expected)


@pytest.mark.parametrize("name", ["tv", "lk-hybrid"])
def test_target_rows_shared_by_draft_rows(name):
    """As in a window, where the chains of neighbouring anchors meet at the same positions."""
    h, _, w, _ = problem()
    states = problem(seed=1)[0].view(-1, D)[: N + K]
    rows = torch.arange(N)[:, None] + torch.arange(K)
    expected = gradients(lambda h: eager(name, h, states[rows], w, w, 0.7), h)
    found = gradients(lambda h: step_losses(name, h, states, w, temperature=0.7, target_rows=rows)[0], h)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_types(name, dtype):
    """Values to float32's rounding: the logits are rounded alike on both sides. Gradients: slopes in bfloat16 lose
    2^-8 of each term, and those of the two divergences are rounded apart."""
    h, t, w, w_target = problem(dtype)
    expected = gradients(lambda h: eager(name, h, t, w, w_target), h)
    found = gradients(lambda h: step_losses(name, h, t, w, w_target)[0], h)
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    tolerance = {torch.bfloat16: 2e-2, torch.float32: 1e-4}[dtype]
    scale = expected[1].float().norm(dim=-1, keepdim=True)
    assert ((found[1].float() - expected[1].float()).norm(dim=-1, keepdim=True) <= tolerance * scale + 1e-6).all()


def test_everything_and_nothing_in_common():
    """alpha exactly 1 and exactly 0: e2e products, logarithms and the mixture stay finite, and so do gradients."""
    h, _, w, _ = problem(torch.float32)
    for name in FUSED:
        value, slope = gradients(lambda h, name=name: step_losses(name, h, h.detach(), w)[0], h)
        assert value.abs().max() < 1e-5 and slope.abs().max() < 1e-3
    far = 1e4 * torch.eye(V, D)  # row 0 all for token 0, its target all for token 1
    one, other = torch.eye(D)[:1, None], torch.eye(D)[1:2, None]
    for name in FUSED:
        value, slope = gradients(lambda h, name=name: step_losses(name, h, other, far)[0], one)
        assert torch.isfinite(value).all() and torch.isfinite(slope).all()
    assert linear_tv(one, other, far) == 1


def test_no_tensor_of_all_tokens_and_the_vocabulary():
    """Neither forward nor backward, nor where the weight learns."""
    h, t, w, _ = problem()
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else (out,)
            largest = max([largest, *(x.numel() for x in tensors if isinstance(x, torch.Tensor))])
            return out

    with Watch():
        gradients(lambda h: step_losses("lk-hybrid", h, t, w)[0], h)
        gradients(lambda h, w: linear_e2e_tv(h, t, w), h, w)
    assert largest == 16 * V


def test_alphas_come_along_without_gradient():
    h, t, w, _ = problem()
    per_step, alpha = step_losses("kl", h.requires_grad_(), t.requires_grad_(), w)
    torch.testing.assert_close(alpha, losses.acceptance(h @ w.T, t @ w.T).detach())
    assert per_step.requires_grad and not alpha.requires_grad
    per_step.sum().backward()
    assert t.grad is None


def test_no_rows_at_all():
    h, t, w, _ = problem()
    for name in FUSED:
        value, slope = gradients(lambda h, name=name: step_losses(name, h, t[:0], w)[0], h[:0])
        assert value.shape == (0, K) and slope.shape == (0, K, D)


def test_inputs_are_not_written():
    inputs = problem(torch.float32)
    kept = [x.clone() for x in inputs]
    h, t, w, w_target = inputs
    gradients(lambda h, w: step_losses("lk-hybrid", h, t, w, w_target)[0], h, w)
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))


def test_under_autocast_the_weights_type_holds():
    h, t, w, _ = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_tv(h, t, w), linear_tv(h, t, w))
        inside = linear_tv(h, t, w)
    assert torch.equal(inside, linear_tv(h, t, w))


def test_no_second_derivatives():
    h, t, w, _ = problem()
    (slope,) = torch.autograd.grad(linear_tv(h.requires_grad_(), t, w).square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_bad_arguments():
    h, t, w, _ = problem()
    faults = [
        (lambda: linear_tv(h[..., :4], t, w), "draft_hidden"),
        (lambda: linear_tv(h, t[..., :4], w), "target_hidden"),
        (lambda: linear_tv(h, t, w, w[:9]), "vocabulary"),
        (lambda: linear_tv(h, t, w, w.float()), "type"),
        (lambda: linear_tv(h, t[:2], w), "target_rows"),
        (lambda: linear_tv(h, t, w, temperature=0.0), "temperature"),
        (lambda: linear_tv(h, t, w, backend="cuda"), "backend"),
    ]
    for call, text in faults:
        with pytest.raises(SpecdecError, match=text):
            call()
