"""The emitted tokens follow the target's distribution: 200,000 requests against the exact law, at level 1e-6.

The joint law of three tokens is tested, over a target whose rows depend on the tokens before: a step emits one to three
of them, further steps without drafts fill up. Planted faults show that the test sees what it should.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from specdec.conformance.statistics import LEVEL, ChiSquare, chi_square
from specdec.sampling import (
    ACCEPT,
    DRAFT,
    SamplingBatch,
    filtered_logits,
    inverse_cdf,
    philox_uniform,
    thresholds,
    weights,
)
from specdec.verify import Draft, VerifyOutput, sample_draft, verify

V, B = 5, 200_000
SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "filters": {"temperature": 1.3, "top_k": 4, "top_p": 0.93},
    "min-p": {"min_p": 0.15},
}

g = torch.Generator().manual_seed(2)
TARGET = [torch.randn(*[V] * k, V, generator=g) * 1.5 for k in range(3)]  # logits of token k given the k before
HEAD = [rows + torch.randn(rows.shape, generator=g) for rows in TARGET[:2]]


def law(**settings: float) -> Tensor:
    """The exact joint law of three tokens, [V, V, V]."""
    s = SamplingBatch.uniform(1, **settings)
    rows = [
        filtered_logits(
            t.view(-1, V), *(getattr(s, f).expand(V**k) for f in ("temperature", "top_k", "top_p", "min_p"))
        )
        for k, t in enumerate(TARGET)
    ]
    p1, p2, p3 = (r.double().softmax(-1).view(*[V] * (k + 1)) for k, r in enumerate(rows))
    return p1[:, None, None] * p2[:, :, None] * p3


def sampling(**settings: float) -> SamplingBatch:
    s = SamplingBatch.uniform(B, position=100, **settings)
    s.seed = torch.arange(B) * 7919 + 13
    return s


def later(s: SamplingBatch, by: int) -> SamplingBatch:
    return SamplingBatch(s.temperature, s.top_k, s.top_p, s.min_p, s.seed, s.position + by)


def draw_drafts(s: SamplingBatch, q_temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Two drafts per request: tokens [B, 2], logits [B, 2, V], row statistics [B, 2, 4]."""
    q = SamplingBatch(s.temperature * q_temperature, s.top_k, s.top_p, s.min_p, s.seed, s.position)
    row1 = HEAD[0].expand(B, V)
    x1, stats1 = sample_draft(row1, q, 0)
    row2 = HEAD[1][x1.long()]
    x2, stats2 = sample_draft(row2, q, 1)
    return torch.stack([x1, x2], 1), torch.stack([row1, row2], 1), torch.stack([stats1, stats2], 1)


def target_rows(x: Tensor) -> Tensor:
    """[B, 3, V] after no, one and two drafts x [B, 2]."""
    return torch.stack(
        [TARGET[0].expand(B, V), TARGET[1][x[:, 0].long()], TARGET[2][x[:, 0].long(), x[:, 1].long()]], 1
    )


Fault = Callable[[VerifyOutput, SamplingBatch], None]


def emit_three(s: SamplingBatch, x: Tensor, draft: Draft, fault: Fault | None = None) -> Tensor:
    """One verify step, then steps without drafts until there are three tokens per request: [B, 3]."""
    out = verify(target_rows(x).view(-1, V), draft, s)
    if fault:
        fault(out, s)
    tokens = out.token_ids.long()
    for k in (1, 2):
        rows = TARGET[1][tokens[:, 0]] if k == 1 else TARGET[2][tokens[:, 0], tokens[:, 1]]
        fresh = verify(rows, Draft(torch.empty(0, dtype=torch.int32), [0] * B), later(s, k)).token_ids[:, 0].long()
        tokens[:, k] = torch.where(tokens[:, k] < 0, fresh, tokens[:, k])
    return tokens


def fit(tokens: Tensor, **settings: float) -> ChiSquare:
    counts = torch.bincount(tokens[:, 0] * V * V + tokens[:, 1] * V + tokens[:, 2], minlength=V**3)
    return chi_square(counts, law(**settings))


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "stats") for name in SETTINGS), ("filters", "logits"), ("plain", "one-hot"), ("filters", "one-hot")],
)
def test_joint_law(name: str, kind: str):
    s = sampling(**SETTINGS[name])
    x, logits, stats = draw_drafts(s, 0.8 if kind == "stats" else 1.0)
    if kind == "one-hot":
        x = torch.stack([HEAD[0].argmax().expand(B), HEAD[1][HEAD[0].argmax()].argmax().expand(B)], 1)
        draft = Draft(x.reshape(-1), [2] * B)
    else:
        draft = Draft(x.view(-1), [2] * B, logits.view(-1, V), stats.view(-1, 4) if kind == "stats" else None)
    result = fit(emit_three(s, x, draft), **SETTINGS[name])
    assert result.p_value > LEVEL, result


def test_acceptance_is_its_expectation():
    """Observed share, mean of min(1, p/q), exact Σ min(p, q) of the first drafts: equal to 5 standard errors."""
    s = sampling(**SETTINGS["filters"])
    x, logits, stats = draw_drafts(s, 1.0)
    draft = Draft(x.view(-1), [2] * B, logits.view(-1, V), stats.view(-1, 4))
    out = verify(target_rows(x).view(-1, V), draft, s, expected_acceptance=True)
    alpha = out.expected_acceptance.view(B, 2)[:, 0].double()
    assert alpha.std() < 1e-6
    error = (alpha[0] * (1 - alpha[0]) / B) ** 0.5
    assert abs((out.num_accepted > 0).double().mean() - alpha[0]) < 5 * error
    assert abs(out.acceptance_probability.view(B, 2)[:, 0].double().mean() - alpha[0]) < 5 * error


def faulty(fault: str) -> ChiSquare:
    settings = SETTINGS["filters"]
    s = sampling(**settings)
    x, logits, stats = draw_drafts(s, 0.8)
    draft = Draft(x.view(-1), [2] * B, logits.view(-1, V), stats.view(-1, 4))
    change: Fault | None = None
    if fault == "q at another temperature":
        draft.row_stats = None  # recomputed at T, though sampled at 0.8 T
    elif fault == "draft and acceptance share a stream":
        row = HEAD[0].expand(B, V)
        threshold = thresholds(row, s.temperature * 0.8, s.top_k, s.top_p, s.min_p)
        noise = philox_uniform(s.seed, s.position, ACCEPT)
        x[:, 0] = inverse_cdf(weights(row, s.temperature * 0.8, threshold), noise).int()
        stats[:, 0, 3] = HEAD[0][x[:, 0].long()].double()
        second = SamplingBatch(s.temperature * 0.8, s.top_k, s.top_p, s.min_p, s.seed, s.position)
        logits[:, 1] = HEAD[1][x[:, 0].long()]
        x[:, 1], stats[:, 1] = sample_draft(logits[:, 1], second, 1)
        draft = Draft(x.view(-1), [2] * B, logits.view(-1, V), stats.view(-1, 4))
    elif fault == "recovered token drawn from p":

        def change(out: VerifyOutput, s: SamplingBatch) -> None:
            none = (out.num_accepted == 0).nonzero()[:, 0]
            p = law(**settings).sum((1, 2)).expand(len(none), V)
            out.token_ids[none, 0] = inverse_cdf(p, philox_uniform(s.seed[none], s.position[none] + 999, DRAFT)).int()

    elif fault == "bonus row without filters":

        def change(out: VerifyOutput, s: SamplingBatch) -> None:
            full = (out.num_accepted == 2).nonzero()[:, 0]
            rows = (target_rows(x)[full, 2] / s.temperature[full, None]).double().softmax(-1)
            out.token_ids[full, 2] = inverse_cdf(
                rows, philox_uniform(s.seed[full], s.position[full] + 999, DRAFT)
            ).int()

    return fit(emit_three(s, x, draft, change), **settings)


@pytest.mark.parametrize(
    "fault",
    [
        "q at another temperature",
        "draft and acceptance share a stream",
        "recovered token drawn from p",
        "bonus row without filters",
    ],
)
def test_planted_faults_are_found(fault: str):
    assert faulty(fault).p_value < 1e-12


def test_without_a_fault_the_same_path_passes():
    assert faulty("none").p_value > LEVEL
