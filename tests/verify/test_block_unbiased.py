"""The block rule over several steps: 200,000 requests against the target's exact joint law, at level 1e-6.

Every step drafts with sample_draft, as an engine does, because the block rule looks at drafts behind the last accepted
one: were the next step to draw from the same random numbers, each step alone would be exact and their sequence biased.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from specdec.conformance.statistics import LEVEL, ChiSquare, chi_square
from specdec.sampling import DRAFT, SamplingBatch, filtered_logits, inverse_cdf, philox_uniform
from specdec.verify import Draft, VerifyOutput, sample_draft, verify
from specdec.verify.block import block

V, B, LENGTH, DRAFTS = 4, 200_000, 4, 3
SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "filters": {"temperature": 1.3, "top_k": 3, "top_p": 0.93},
    "min-p": {"min_p": 0.15},
}

g = torch.Generator().manual_seed(3)
TARGET = torch.randn(V, V, generator=g) * 1.2  # logits of a token given the one before; the first follows token 0
HEAD = TARGET + torch.randn(V, V, generator=g)


def probabilities(logits: Tensor, **settings: float) -> Tensor:
    s = SamplingBatch.uniform(V, **settings)
    return filtered_logits(logits, s.temperature, s.top_k, s.top_p, s.min_p).double().softmax(-1)


def law(**settings: float) -> Tensor:
    p = probabilities(TARGET, **settings)
    joint = p[0]
    for _ in range(LENGTH - 1):
        joint = joint[..., None] * p
    return joint


Fault = Callable[[VerifyOutput, SamplingBatch, Tensor], None]


def requests(**settings: float) -> SamplingBatch:
    s = SamplingBatch.uniform(B, position=100, **settings)
    s.seed = torch.arange(B) * 7919 + 13
    return s


def draw_drafts(s: SamplingBatch, last: Tensor, n: int, shared_streams: bool = False) -> Draft:
    """n drafts behind token `last` of each request; shared_streams: number by absolute position alone."""
    batch, rows, tokens, stats, x = len(s), [], [], [], last
    for j in range(n):
        rows.append(HEAD[x])
        moved, step = (replace(s, position=s.position + j), 0) if shared_streams else (s, j)
        drawn, row_stats = sample_draft(rows[-1], moved, step)
        tokens.append(drawn)
        stats.append(row_stats)
        x = drawn.long()
    return Draft(
        torch.stack(tokens, 1).flatten(),
        [n] * batch,
        torch.stack(rows, 1).flatten(0, 1),
        torch.stack(stats, 1).flatten(0, 1),
    )


def target_rows(last: Tensor, draft: Draft) -> Tensor:
    before = torch.cat([last[:, None], draft.token_ids.view(len(last), -1).long()], 1)
    return TARGET[before].flatten(0, 1)


def generate(
    s: SamplingBatch, change: Callable[[Draft], None] | None = None, fault: Fault | None = None, **streams: bool
) -> Tensor:
    """LENGTH tokens of every request, [B, LENGTH], in as many steps as it takes."""
    text = torch.zeros(B, LENGTH + DRAFTS + 1, dtype=torch.int64)
    done = torch.zeros(B, dtype=torch.int64)
    while (active := (done < LENGTH).nonzero()[:, 0]).numel():
        now = s.rows(active)
        now.position = now.position + done[active]
        last = torch.where(done[active] > 0, text[active, done[active] - 1], 0)
        draft = draw_drafts(now, last, DRAFTS, **streams)
        rows = target_rows(last, draft)
        if change:
            change(draft)
        out = verify(rows, draft, now, method="block")
        if fault:
            fault(out, now, rows.view(len(active), -1, V))
        for j in range(DRAFTS + 1):
            some = out.num_accepted >= j
            text[active[some], done[active[some]] + j] = out.token_ids[some, j].long()
        done[active] += out.num_accepted + 1
    return text[:, :LENGTH]


def fit(tokens: Tensor, **settings: float) -> ChiSquare:
    place = (tokens * V ** torch.arange(LENGTH - 1, -1, -1)).sum(1)
    return chi_square(torch.bincount(place, minlength=V**LENGTH), law(**settings))


def without_statistics(draft: Draft) -> None:
    draft.row_stats = None


def some_point_masses(draft: Draft) -> None:
    """Every fifth request lost its rows: verified by the token rule, beside the others."""
    draft.row_stats.view(-1, DRAFTS, 4)[::5] = 0.0


@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, None) for name in SETTINGS), ("filters", without_statistics), ("filters", some_point_masses)],
)
def test_joint_law_over_several_steps(name: str, change: Callable[[Draft], None] | None):
    result = fit(generate(requests(**SETTINGS[name]), change), **SETTINGS[name])
    assert result.p_value > LEVEL, result


def test_acceptance_is_its_expectation():
    """Accepted share by position, and the sum of acceptance_probability over reached drafts, against Σ q(x) T_i(x).

    Bound: 5 standard errors, each at most 1 / sqrt(4 B).
    """
    settings = SETTINGS["filters"]
    s, start = requests(**settings), torch.zeros(B, dtype=torch.int64)
    draft = draw_drafts(s, start, DRAFTS)
    out = verify(target_rows(start, draft), draft, s, method="block", expected_acceptance=True)
    p, q = probabilities(TARGET, **settings), probabilities(HEAD, **settings)
    expected = torch.zeros(DRAFTS, dtype=torch.float64)
    for x in torch.cartesian_prod(*[torch.arange(V)] * DRAFTS):
        before = torch.cat([torch.zeros(1, dtype=torch.int64), x])
        chances = q[before[:-1], x]
        if chances.prod() > 0:
            found = block(p[before], q[before[:-1]], x.tolist(), chances.tolist())
            expected += chances.prod() * torch.tensor(found.reach[1:], dtype=torch.float64)
    bound = 5 / (4 * B) ** 0.5
    observed = torch.stack([(out.num_accepted > j).double().mean() for j in range(DRAFTS)])
    assert (observed - expected).abs().max() < bound
    given = out.acceptance_probability.view(B, DRAFTS).double()
    assert (given.nan_to_num().mean(0) - expected).abs().max() < bound
    assert torch.equal(given.isnan(), torch.arange(DRAFTS) > out.num_accepted[:, None])
    token = verify(target_rows(start, draft), draft, s, method="token")
    assert out.num_accepted.double().mean() > token.num_accepted.double().mean() + bound
    torch.testing.assert_close(
        out.expected_acceptance.view(B, DRAFTS)[:, 0].double(),
        torch.minimum(p[0], q[0]).sum().expand(B),
        atol=1e-6,
        rtol=0,
    )


def recovered_as_by_the_token_rule(out: VerifyOutput, s: SamplingBatch, rows: Tensor) -> None:
    """max(P - Q, 0) in the place of max(w P - Q, 0)."""
    p, q = probabilities(TARGET), probabilities(HEAD)
    some = ((out.num_accepted > 0) & (out.num_accepted < DRAFTS)).nonzero()[:, 0]
    before = out.token_ids[some, out.num_accepted[some] - 1].long()
    noise = philox_uniform(s.seed[some], s.position[some] + 999, DRAFT)
    out.token_ids[some, out.num_accepted[some]] = inverse_cdf((p - q).clamp(min=0)[before], noise).int()


def bonus_from_the_head(out: VerifyOutput, s: SamplingBatch, rows: Tensor) -> None:
    some = (out.num_accepted == DRAFTS).nonzero()[:, 0]
    noise = philox_uniform(s.seed[some], s.position[some] + 999, DRAFT)
    q = probabilities(HEAD)[out.token_ids[some, DRAFTS - 1].long()]
    out.token_ids[some, DRAFTS] = inverse_cdf(q, noise).int()


@pytest.mark.parametrize("fault", [recovered_as_by_the_token_rule, bonus_from_the_head])
def test_planted_faults_are_found(fault: Fault):
    assert fit(generate(requests(), fault=fault)).p_value < 1e-12


def test_q_at_another_temperature_is_found():
    def change(draft: Draft) -> None:
        draft.logits = draft.logits / 0.7
        draft.row_stats = None

    assert fit(generate(requests(), change)).p_value < 1e-12


def test_draft_streams_shared_between_steps_are_found():
    """Drafts numbered by absolute position: what a rejected draft was drawn from would be met again one step later."""
    assert fit(generate(requests(), shared_streams=True)).p_value < 1e-12
