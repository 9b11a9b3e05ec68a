"""What is drawn for a chain depends on the seed and on the chain's place alone, and labels follow the target's law."""

import torch

from specdec.training.draws import Draws
from specdec.training.objective import _sampled


def test_a_batch_in_parts_draws_what_the_whole_draws():
    places = torch.arange(6, 12)
    anchors = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.7
    whole = Draws(3, places, anchors).uniform("label", 2)
    parts = [Draws(3, places[p], anchors[p]).uniform("label", 2) for p in (slice(0, 1), slice(1, 6))]
    assert torch.equal(torch.cat(parts), whole) and len(whole) == anchors.sum()
    assert len(whole.unique()) == whole.numel()  # neither windows nor steps share a number
    fewer = anchors.clone()
    fewer[0, :4] = False  # the other chains keep their numbers
    assert torch.equal(Draws(3, places, fewer).uniform("label", 2), whole[int(anchors[0, :4].sum()) :])
    assert not torch.equal(Draws(4, places, anchors).uniform("label", 2), whole)


def test_labels_follow_the_target():
    """5 standard deviations of a frequency among 20,000 draws; a token of probability zero is never drawn."""
    teacher = torch.tensor([float("-inf"), 0.0, 1.0, float("-inf"), 2.0]).expand(100, 200, 5)
    labels = _sampled(teacher, Draws(0, torch.arange(10), torch.ones(10, 10, dtype=torch.bool)))
    drawn = torch.bincount(labels.flatten(), minlength=5) / labels.numel()
    p = teacher[0, 0].softmax(-1)
    assert ((drawn - p).abs() <= 5 * (p * (1 - p) / labels.numel()).sqrt()).all()
