"""What serving will show, against serving: drafts, the real verify step, one step behind the other."""

import itertools

import pytest
import torch

from specdec.evaluation.acceptance import Acceptance
from specdec.evaluation.filters import PLAIN
from specdec.evaluation.measure import Figures
from specdec.evaluation.served import _step_chances, continuation_windows, predict, ratio_with_error
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, sample_draft, verify

ROWS, LENGTH, STEPS = 512, 48, 3


def chances_by_enumeration(kept):
    """Chance that a step starts at each anchor, from every outcome of every draft: kept [A][K] -> [A]."""
    anchors, steps = len(kept), len(kept[0])
    chances = [0.0] * anchors

    def walk(anchor, probability):
        if anchor >= anchors:
            return
        chances[anchor] += probability
        for outcome in itertools.product((True, False), repeat=steps):
            accepted = (*outcome, False).index(False)
            chance = probability
            for kept_here, r in zip(outcome, kept[anchor], strict=True):
                chance *= r if kept_here else 1 - r
            walk(anchor + accepted + 1, chance)

    walk(0, 1.0)
    return chances


def test_chances_of_steps_are_those_of_all_outcomes():
    kept = torch.rand(2, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = _step_chances(kept, torch.tensor([0, 0]))
    for row in range(2):
        assert found[row].tolist() == pytest.approx(chances_by_enumeration(kept[row].tolist()))
    later = _step_chances(kept, torch.tensor([2, 9]))  # the second row has no anchor to start at
    assert later[0, 2] == 1 and not later[0, :2].any() and not later[1].any()


def test_ratio_and_its_error():
    """A ratio of sums with the delta method's error, against the spread of the ratio over many samples."""
    generator = torch.Generator().manual_seed(0)
    wholes = torch.randint(1, 9, (400, 200), generator=generator).double()
    parts = wholes * 2 + torch.randn(400, 200, generator=generator).double() * 3
    found = [ratio_with_error(p, w) for p, w in zip(parts, wholes, strict=True)]
    ratios = torch.tensor([ratio for ratio, _ in found])
    assert ratios.mean().item() == pytest.approx(2, abs=0.01)
    assert torch.tensor([e for _, e in found]).mean().item() == pytest.approx(1.96 * ratios.std().item(), rel=0.1)


# A target and a head whose distributions depend on the last token alone. The text stays for long where the head knows
# the target (tokens 0 to 2) and for long where it does not (3 to 5), so acceptance comes in runs.
EASY, HARD = [0.5, 0.3, 0.15, 0.02, 0.02, 0.01], [0.02, 0.02, 0.01, 0.6, 0.25, 0.1]
TARGET = torch.tensor([EASY] * 3 + [HARD] * 3)
HEAD = torch.tensor([EASY] * 3 + [[0.2, 0.2, 0.2, 0.05, 0.15, 0.2]] * 3)


def serve(greedy):
    """Texts int64 [ROWS, LENGTH] that serving writes behind one token each; tokens written and steps [ROWS], of steps
    with room for all drafts before the end."""
    tokens = torch.zeros(ROWS, LENGTH + STEPS + 1, dtype=torch.int64)
    everyone, known = torch.arange(ROWS), torch.full((ROWS,), 2)
    tokens[:, 0] = everyone % 6
    tokens[:, 1] = torch.multinomial(TARGET[tokens[:, 0]], 1, generator=torch.Generator().manual_seed(0))[:, 0]
    written, steps = torch.zeros(ROWS), torch.zeros(ROWS)
    sampling = SamplingBatch.uniform(ROWS, seed=0)
    sampling.seed = everyone.clone()
    while (going := known < LENGTH).any():
        place = known.clamp(max=LENGTH)
        sampling.position, drafts = place.clone(), []
        for k in range(STEPS):
            drafts.append(HEAD[tokens[everyone, place + k - 1]].log())
            drawn = drafts[-1].argmax(-1) if greedy else sample_draft(drafts[-1], sampling, k)[0].long()
            tokens[everyone[going], place[going] + k] = drawn[going]
        seen = tokens[everyone[:, None], place[:, None] + torch.arange(-1, STEPS)]  # the last known token, the drafts
        rows = None if greedy else torch.stack(drafts, 1).flatten(0, 1)
        draft = Draft(seen[:, 1:].flatten().int(), [STEPS] * ROWS, rows)
        out = verify(TARGET[seen].log().flatten(0, 1), draft, sampling)
        whole = going & (place + STEPS <= LENGTH)
        written += torch.where(whole, out.num_accepted + 1, 0)
        steps += whole
        for n in range(STEPS + 1):
            some = going & (out.num_accepted >= n)
            tokens[everyone[some], place[some] + n] = out.token_ids[some, n].long()
        known = torch.where(going, known + out.num_accepted + 1, known)
    return tokens[:, :LENGTH], written.double(), steps.double()


def figures_along(tokens):
    """What measure.py finds along these texts, from the definitions."""
    rows, anchors = (i.flatten() for i in torch.meshgrid(*map(torch.arange, (ROWS, LENGTH - STEPS - 1)), indexing="ij"))
    index = anchors[:, None] + torch.arange(1, STEPS + 1)
    last, token = tokens[rows[:, None], index], tokens[rows[:, None], index + 1]
    p, q = TARGET[last], HEAD[last]
    best = q.argmax(-1)
    at = lambda d, t: d.gather(-1, t[..., None])[..., 0]  # noqa: E731
    entropy = torch.special.entr(p).sum(-1)
    kept = (at(q, token) / at(p, token)).clamp(max=1)
    values = (torch.minimum(p, q).sum(-1), at(p, best), kept, (best == token).float(), entropy, entropy)
    return Figures(*values, rows, anchors, rows)


@pytest.mark.parametrize("greedy", [False, True])
def test_serving_shows_what_was_predicted(greedy):
    tokens, written, steps = serve(greedy)
    figures = figures_along(tokens)
    found = predict(figures, torch.zeros(ROWS, dtype=torch.int64), greedy)
    measured, error = ratio_with_error(written, steps)
    assert found.length == pytest.approx(measured, rel=0.008)  # about 10,000 steps
    assert found.steps == pytest.approx(steps.sum().item(), rel=0.008)
    assert found.error == pytest.approx(error, rel=0.2)
    # Along the text, position by position, it would be far from that: the accepted drafts are no sample of the text,
    # and steps begin more often where drafts are rejected.
    along = Acceptance.of(figures, PLAIN)
    assert (along.greedy_length if greedy else along.length) > 1.05 * measured


def test_windows_of_continuations():
    """The first draft of a text stands for its second token; padding is a document of its own."""
    first, second = continuation_windows([[5, 6], [7, 8, 9], [5]], [[1, 2, 3, 4], [1, 2], [6]], rows=2)
    assert second.tokens.tolist() == [[5, 6]] and not second.whole_chains(1).any()
    assert first.tokens.tolist() == [[5, 6, 1, 2, 3, 4], [7, 8, 9, 1, 2, 0]]
    assert first.documents.tolist() == [[0] * 6, [1] * 5 + [-1]]
    assert first.whole_chains(2).nonzero().tolist() == [[0, 1], [0, 2]]
