"""Scales that follow what requests show, and the acceptance that they are judged by."""

import pytest
import torch

from specdec.drafting import BUCKETS, GREEDY_PLACE, NEUTRAL, DraftScales, overlap, running
from specdec.drafting.running import ROWS, STEP
from specdec.sampling import SamplingBatch, thresholds

from specdec.drafting import thresholds_of  # isort: skip
from specdec.verify import Draft, sample_draft, verify
from tests.helpers.cases import random_case

V = 40


def test_overlap_is_what_verification_expects():
    case = random_case(1, vocab=70, batch=60)
    counts = case.draft.counts()
    expected = verify(case.target, case.draft, case.sampling, expected_acceptance=True).expected_acceptance
    request = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    sampling = case.sampling.rows(request)
    target = case.target[torch.arange(len(request)) + request]
    assert case.draft.logits is not None and expected is not None
    found = overlap(target, case.draft.logits, sampling)
    sampled = sampling.temperature > 0
    torch.testing.assert_close(found[sampled], expected[sampled], atol=1e-5, rtol=1e-5)
    assert sampled.sum() > 50


def test_thresholds_are_those_of_the_definition():
    case = random_case(2, vocab=70, batch=80)
    logits, s = case.target[:80], case.sampling
    expected = thresholds(logits, s.temperature, s.top_k, s.top_p, s.min_p)
    sampled = s.temperature > 0
    found = thresholds_of(logits, s)[:, 0].double()
    torch.testing.assert_close(found[sampled], expected[sampled], rtol=1e-6, atol=1e-6)


class Server:
    """Verify steps of one batch, whose head gives `sharpness` times the target's logits plus noise."""

    def __init__(self, scales: DraftScales, sharpness: float, sampling: SamplingBatch, seeded: list[bool]):
        self.scales, self.sharpness, self.sampling = scales, sharpness, sampling
        fields = zip(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, seeded, strict=True)
        self.places = torch.tensor([DraftScales.place(*(float(x) for x in f[:-1]), f[-1]) for f in fields])
        self.generator = torch.Generator().manual_seed(0)

    def steps(self, count: int) -> None:
        batch = len(self.sampling)
        for _ in range(count):
            target = 2 * torch.randn(2 * batch, V, generator=self.generator)
            noise = torch.randn(batch, V, generator=self.generator)
            logits = self.sharpness * (target[::2] + noise) * self.scales.of(self.places)[:, None]
            tokens, stats = sample_draft(logits, self.sampling, 0)
            draft = Draft(tokens, [1] * batch, logits, stats, torch.arange(batch))
            self.scales.look(target, draft, self.sampling, self.places)

    def following(self, temperature: float, top_p: float = 1.0) -> float:
        return float(self.scales.values[DraftScales.place(temperature, 0, top_p, 0.0, seeded=False)])


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(running, "EVERY", 1)


def test_a_flat_head_is_sharpened_where_its_requests_are(every_step):
    sampling = SamplingBatch.uniform(9, seed=1)
    sampling.top_p[4:] = 0.9
    sampling.temperature[8] = 0.0
    server = Server(DraftScales(NEUTRAL, "cpu", follow=True), 0.5, sampling, [False] * 9)
    server.steps(300)
    # The best scale restores the sharpness, but for what the noise takes: at half of it, between 1.4 and 2 times.
    assert 1.4 < server.following(1.0) < 2.1 and 1.4 < server.following(1.0, 0.9) < 2.1
    values = server.scales.values
    moved = {server.places[0].item(), server.places[4].item()}
    assert all(values[i] == 1 for i in range(len(values)) if i not in moved)
    assert values[GREEDY_PLACE] == 1


def test_what_it_settles_on_is_the_best(every_step):
    """By the acceptance of fresh rows at its neighbours: neither gains more than the margin, noise allowed for."""
    sampling = SamplingBatch.uniform(8, seed=1)
    server = Server(DraftScales(NEUTRAL, "cpu", follow=True), 1.6, sampling, [False] * 8)
    server.steps(400)
    found = server.following(1.0)
    target = 2 * torch.randn(3000, V, generator=server.generator)
    head = 1.6 * (target + torch.randn(3000, V, generator=server.generator))
    rows = SamplingBatch.uniform(3000, seed=1)
    here, *others = (overlap(target, head * s, rows).mean() for s in (found, found * STEP, found / STEP))
    assert found < 1 / STEP and all(here > other - 0.004 for other in others)


def test_seeded_requests_and_those_that_do_not_follow_keep_the_stored_scales(every_step):
    sampling = SamplingBatch.uniform(8, seed=1)
    for follow, seeded in ((True, True), (False, False)):
        server = Server(DraftScales(NEUTRAL, "cpu", follow=follow), 0.5, sampling, [seeded] * 8)
        server.steps(40)
        assert (server.scales.values == 1).all()


def test_a_good_scale_is_left_alone(every_step):
    server = Server(DraftScales(NEUTRAL, "cpu", follow=True), 1.0, SamplingBatch.uniform(8, seed=1), [False] * 8)
    server.generator.manual_seed(3)
    server.sharpness = 4 / 5  # as the noise would have it
    server.steps(400)
    assert 1 / STEP - 0.01 < server.following(1.0) < STEP + 0.01


def test_rows_that_are_not_kept_or_are_no_distribution_say_nothing(every_step):
    scales = DraftScales(NEUTRAL, "cpu", follow=True)
    sampling = SamplingBatch.uniform(3, seed=1)
    places = torch.full((3,), len(BUCKETS))
    target = torch.randn(6, V)
    logits = 0.3 * target[::2]
    target[2], logits[2] = torch.nan, -torch.inf
    draft = Draft(torch.zeros(3, dtype=torch.int64), [1] * 3, logits, None, torch.tensor([-1, 1, 2]))
    for _ in range(80):
        scales.look(target, draft, sampling, places)
    assert (scales.values == 1).all()


def test_every_request_has_its_turn(monkeypatch):
    """Each look is at other requests, at the first target row and the first draft of each."""
    monkeypatch.setattr(running, "EVERY", 2)
    counts = [2, 0, 1, 3] * 5
    batch, drafts = len(counts), sum(counts)
    request_of_row = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts) + 1)
    target = torch.randn(drafts + batch, V)
    first_row = [int((request_of_row < b).sum()) for b in range(batch)]
    pool = torch.randn(drafts + 7, V)
    draft = Draft(torch.zeros(drafts), counts, pool, None, torch.arange(drafts) + 7)
    seen: list[int] = []
    scales = DraftScales(NEUTRAL, "cpu", follow=True)

    def observe(target_rows, draft_rows, sampling, places, backend):
        assert len(target_rows) == ROWS
        for one, q, request in zip(target_rows, draft_rows, sampling.seed.tolist(), strict=True):
            assert torch.equal(one, target[first_row[request]])
            assert torch.equal(q, pool[sum(counts[:request]) + 7])
            seen.append(request)

    monkeypatch.setattr(scales, "observe", observe)
    sampling = SamplingBatch.uniform(batch, seed=0)
    sampling.seed = torch.arange(batch)
    for _ in range(8):
        scales.look(target, draft, sampling, torch.zeros(batch, dtype=torch.int64))
    assert len(seen) == 4 * ROWS and set(seen) == {b for b, n in enumerate(counts) if n}
