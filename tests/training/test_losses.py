"""Losses against hand-worked values, closed-form gradients and finite differences, in float64."""

import math

import pytest
import torch

from specdec.training.losses import (
    LOG_FLOOR,
    LOSSES,
    STEP_LOSSES,
    chain_mean,
    cross_entropy,
    demonstration_weights,
    e2e_tv,
    kl,
    lk_hybrid,
    neg_log_alpha,
    reverse_kl,
    tv,
)

PER_POSITION = [kl, reverse_kl, tv, lk_hybrid, neg_log_alpha]
P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(loss, z, *arguments):
    z = z.clone().requires_grad_()
    loss(z, *arguments).sum().backward()
    return z.grad


def test_hand_worked_values():
    z, t = Q.log(), P.log()
    assert tv(z, t).item() == pytest.approx(1 - (0.2 + 0.2 + 0.2))
    assert neg_log_alpha(z, t).item() == pytest.approx(-math.log(0.6))
    expected = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) + 0.2 * math.log(1 / 3)
    assert kl(z, t).item() == pytest.approx(expected)
    assert reverse_kl(z, t).item() == pytest.approx(0.2 * math.log(0.4) + 0.2 * math.log(2 / 3) + 0.6 * math.log(3))
    assert cross_entropy(z, torch.tensor(2)).item() == pytest.approx(-math.log(0.6))
    assert cross_entropy(z, t).item() == pytest.approx(expected - (P * P.log()).sum().item())
    weight = math.exp(-3 * 0.6)
    assert lk_hybrid(z, t).item() == pytest.approx(weight * expected + (1 - weight) * 0.4)
    chain = torch.stack([z, t, z]), torch.stack([t, t, t])  # alpha 0.6, 1, 0.6
    assert e2e_tv(*chain).item() == pytest.approx(1 - (0.6 + 0.6 + 0.36) / 3)


def test_shapes_and_types():
    z, t = logits(4, 5, 3, 11), logits(4, 5, 3, 11, seed=1)
    assert all(loss(z, t).shape == (4, 5, 3) for loss in PER_POSITION)
    assert e2e_tv(z, t).shape == (4, 5)
    assert cross_entropy(z, torch.zeros(4, 5, 3, dtype=torch.int32)).shape == (4, 5, 3)
    assert tv(z.bfloat16(), t.bfloat16()).dtype == torch.float32  # sums over a vocabulary need more than bfloat16
    assert all(loss(z, t, torch.zeros(4, 5, 3, dtype=torch.int64)).shape == (4, 5) for loss in LOSSES.values())


def test_closed_form_gradients():
    z, t = logits(6, 17), logits(6, 17, seed=1)
    q, p = z.softmax(-1), t.softmax(-1)
    torch.testing.assert_close(gradient(kl, z, t), q - p)
    torch.testing.assert_close(gradient(cross_entropy, z, t), q - p)
    labels = torch.arange(6)
    torch.testing.assert_close(gradient(cross_entropy, z, labels), q - torch.eye(17, dtype=q.dtype)[labels])
    torch.testing.assert_close(gradient(reverse_kl, z, t), q * ((q / p).log() - reverse_kl(z, t)[:, None]))
    low = (q <= p).double()
    tv_gradient = -q * (low - (low * q).sum(-1, keepdim=True))
    torch.testing.assert_close(gradient(tv, z, t), tv_gradient)
    torch.testing.assert_close(gradient(neg_log_alpha, z, t), tv_gradient / (1 - tv(z, t))[:, None])
    weight = torch.exp(-3 * (1 - tv(z, t)))[:, None]  # no gradient through the weight
    torch.testing.assert_close(gradient(lk_hybrid, z, t), weight * (q - p) + (1 - weight) * tv_gradient)


def test_e2e_gradient_is_the_papers_recursion():
    z, t = logits(5, 4, 13), logits(5, 4, 13, seed=1)
    alpha = 1 - tv(z, t)
    reach = torch.cat([torch.ones(5, 1, dtype=z.dtype), alpha[:, :-1].cumprod(-1)], -1)
    after = torch.ones_like(alpha)
    for i in (2, 1, 0):
        after[:, i] = 1 + alpha[:, i + 1] * after[:, i + 1]
    expected = (reach * after / 4)[..., None] * gradient(tv, z, t)
    torch.testing.assert_close(gradient(e2e_tv, z, t), expected)


# Not lk_hybrid: it holds its weight fixed on purpose.
@pytest.mark.parametrize("loss", [kl, reverse_kl, tv, neg_log_alpha, e2e_tv, cross_entropy])
def test_gradients_against_finite_differences(loss):
    t = logits(2, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda z: loss(z, t), logits(2, 3, 5).requires_grad_())


def test_hard_label_gradient_against_finite_differences():
    labels = torch.tensor([[0, 4, 2], [1, 1, 3]])
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels), logits(2, 3, 5).requires_grad_())


@pytest.mark.parametrize("loss", [*PER_POSITION, e2e_tv, cross_entropy])
def test_the_target_gets_no_gradient(loss):
    z, t = logits(3, 7).requires_grad_(), logits(3, 7).requires_grad_()
    loss(z, t).sum().backward()
    assert t.grad is None and z.grad is not None


@pytest.mark.parametrize("loss", [*PER_POSITION, e2e_tv, cross_entropy])
def test_filtered_logits_leave_everything_finite(loss):
    """Rows with -inf, as top-k leaves them: on both sides at once, on the draft's only, on the target's only."""
    z, t = logits(3, 4, 9), logits(3, 4, 9, seed=1)
    z[0, :, :4] = t[0, :, :4] = float("-inf")
    z[1, :, :3] = float("-inf")
    t[2, :, 5:] = float("-inf")
    value, slope = loss(z, t), gradient(loss, z, t)
    infinite = {kl, lk_hybrid, cross_entropy}  # p log(1/0) is infinite where the draft rules out a possible token
    assert torch.isfinite(value[[0, 2]]).all()
    assert torch.isfinite(value[1]).all() or loss in infinite
    assert torch.isfinite(slope).all()
    if loss not in infinite:
        assert (slope[z == float("-inf")] == 0).all()


def test_nothing_in_common_and_everything_in_common():
    """alpha exactly 0 and exactly 1: products of alphas must not be divided by them."""
    apart = torch.tensor([0.0, -torch.inf, -torch.inf]), torch.tensor([-torch.inf, 0.0, 0.0])
    assert tv(*apart) == 1 and reverse_kl(*apart) == neg_log_alpha(*apart) == -LOG_FLOOR
    assert all(torch.isfinite(gradient(loss, *apart)).all() for loss in (*PER_POSITION, cross_entropy))
    assert (gradient(neg_log_alpha, *apart) == 0).all()
    chain = torch.stack([apart[0], apart[1]]), torch.stack([apart[1], apart[1]])
    assert e2e_tv(*chain) == 1 and torch.isfinite(gradient(e2e_tv, *chain)).all()
    same = logits(4, 3, 8)
    # A point mass on both sides, and common filters: alpha is 1 with -inf logits as well.
    same[0], same[1, :, 3:] = apart[0].double().repeat(3)[:8], float("-inf")
    same[0, :, 3:] = float("-inf")
    for loss in (*PER_POSITION, e2e_tv):
        assert loss(same, same).abs().max() < 1e-12
        assert gradient(loss, same, same).abs().max() < 1e-12


def test_large_logits():
    z = torch.tensor([1e4, 0.0, -1e4])
    assert all(torch.isfinite(loss(z, z.flip(0))) for loss in PER_POSITION)


def test_tiny_acceptance_still_pulls():
    """float32, alpha below the smallest float: TV's gradient is 0 there, that of -log alpha is as large as ever."""
    z, t = torch.tensor([300.0, 0.0, -50.0]), torch.tensor([0.0, 300.0, -50.0])
    assert neg_log_alpha(z, t).item() == pytest.approx(300 - math.log(2), rel=1e-6)
    assert gradient(tv, z, t).abs().max() == 0
    torch.testing.assert_close(gradient(neg_log_alpha, z, t), torch.tensor([0.5, -0.5, 0.0]))


def test_neg_log_alpha_gradient_is_bounded():
    for scale in (0.1, 1.0, 10.0, 100.0):
        slope = gradient(neg_log_alpha, scale * logits(50, 31).float(), scale * logits(50, 31, seed=1).float())
        assert torch.isfinite(slope).all() and slope.abs().max() <= 1 + 1e-4  # logarithms of hundreds round to 1e-5


def test_demonstration_weights():
    t = torch.stack([P.log(), Q.log(), torch.tensor([0.0, -torch.inf, -torch.inf], dtype=P.dtype)])
    weights = demonstration_weights(t.requires_grad_(), torch.tensor([0, 2, 0], dtype=torch.int32))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.4, 0.0], dtype=P.dtype))
    assert demonstration_weights(t[2], torch.tensor(1)) == 1 and not weights.requires_grad


@pytest.mark.parametrize("name", STEP_LOSSES)
def test_weights_multiply_each_steps_loss_and_gradient(name):
    z, t = logits(4, 3, 11), logits(4, 3, 11, seed=1)
    labels = torch.randint(11, (4, 3), generator=torch.Generator().manual_seed(2))
    per_step = STEP_LOSSES[name](z, t, labels)
    assert per_step.shape == (4, 3)
    torch.testing.assert_close(chain_mean(per_step), LOSSES[name](z, t, labels))
    weights = demonstration_weights(t, labels)
    torch.testing.assert_close(chain_mean(per_step, weights), (weights * per_step).sum(-1) / 3)
    zero_second = torch.tensor([1.0, 0.0, 0.0], dtype=z.dtype)
    slope = gradient(lambda x: chain_mean(STEP_LOSSES[name](x, t, labels), zero_second), z)
    assert (slope[:, 1:] == 0).all() and slope[:, 0].abs().max() > 0
    plain = gradient(lambda x: STEP_LOSSES[name](x, t, labels)[:, 0], z)
    torch.testing.assert_close(3 * slope, plain)
