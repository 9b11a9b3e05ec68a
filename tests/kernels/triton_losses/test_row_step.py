"""The Triton row step against the chunked one, which tests/training/fused compares with autograd.

Tolerance: both take float32 exponentials of the same logits; sums in another order differ by some 1e-6 of themselves.
Slopes in bfloat16 round by up to 2^-8 of themselves, once here and twice in the chunked step.
"""

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.training.fused import FUSED, chunked, step_losses, triton
from specdec.training.fused.sweep import Slopes

TILE = 64
VOCABS = [1, 64, 65, 301]  # around the edge of a tile, and several tiles with a rest


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that an interpreted row takes several; one warp, as more threads than elements would write twice."""
    monkeypatch.setattr(triton, "TILE", TILE)
    monkeypatch.setattr(triton, "WARPS", 1)


def rows(vocab, dtype, device, count=7):
    generator = torch.Generator().manual_seed(vocab)
    z, noise = (torch.randn(count, vocab, generator=generator) for _ in range(2))
    t = z + 0.7 * noise
    t[0] = z[0]  # alpha = 1: every token is a tie
    z[1, 0], t[1, -1] = 200.0, 200.0  # alpha = 0 in float32 (1 where the vocabulary is one token)
    z[2], t[2] = 30 * z[2], 30 * t[2]  # nearly greedy
    return z.to(device, dtype), t.to(device, dtype)


def run(step, z, t, which, temperature, wanted, alias):
    """alpha, KL and the slopes that are wanted; alias: the first of them over z, as the sweep has it."""
    z = z.clone()
    buffers = [torch.full_like(z, float("nan")) if want else None for want in wanted]
    if alias:
        buffers[wanted.index(True)] = z
    alpha, kl = step(z, t, which, temperature, Slopes(*buffers), wanted[1])
    return [alpha, kl, *(buffer for buffer in buffers if buffer is not None)]


# Beyond the vocabulary the interpreter's NumPy sees -inf - -inf before the mask drops it.
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)], ids=["alpha", "kl", "both"])
def test_same_as_chunked(vocab, dtype, wanted, device):
    z, t = rows(vocab, dtype, device)
    expected = run(chunked.row_step, z, t, None, None, wanted, alias=True)
    found = run(triton.row_step, z, t, None, None, wanted, alias=True)
    for value, known in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(value, known, rtol=1e-4, atol=2e-6)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 3 * 2**-8}[dtype]
    for slope, known in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(slope, known, rtol=tolerance, atol=2e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
def test_temperatures_and_shared_target_rows(device):
    z, t = rows(301, torch.float32, device)
    which = torch.tensor([3, 0, 3, 6, 1, 1, 2], device=device)
    temperature = torch.linspace(0.4, 2.0, 7, device=device)[:, None]
    for alias in (True, False):
        expected = run(chunked.row_step, z, t, which, temperature, (True, True), alias)
        found = run(triton.row_step, z, t, which, temperature, (True, True), alias)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)


def test_values_alone_leave_the_logits(device):
    z, t = rows(301, torch.float32, device)
    kept = z.clone(), t.clone()
    alpha, _ = triton.row_step(z, t, None, None, Slopes(None, None), False)
    assert alpha[0].item() == pytest.approx(1.0, abs=1e-6) and alpha[1] == 0
    assert torch.equal(z, kept[0]) and torch.equal(t, kept[1])


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
@pytest.mark.parametrize("name", FUSED)
def test_whole_losses(name, device):
    """Through the sweep and autograd, the weight learning too."""
    generator = torch.Generator().manual_seed(0)
    h, t, w = (torch.randn(*size, generator=generator).to(device) for size in ((3, 2, 8), (3, 2, 8), (150, 8)))
    found = {}
    for backend in ("chunked", "triton"):
        leaves = h.clone().requires_grad_(), w.clone().requires_grad_()
        loss, alpha = step_losses(name, leaves[0], t, leaves[1], w, temperature=0.8, backend=backend)
        loss.sum().backward()
        only = h.clone().requires_grad_()
        step_losses(name, only, t, w, temperature=0.8, backend=backend)[0].sum().backward()
        found[backend] = [loss.detach(), alpha, *(leaf.grad for leaf in (*leaves, only))]
    torch.testing.assert_close(found["triton"], found["chunked"], rtol=1e-4, atol=1e-5)


def test_float64_is_refused(device):
    z = torch.zeros(1, 3, dtype=torch.float64, device=device)
    with pytest.raises(SpecdecError, match="float64"):
        triton.row_step(z, z, None, None, Slopes(None, None), False)
