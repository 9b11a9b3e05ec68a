"""A window of many short documents must train as each document alone would."""

import pytest
import torch

from specdec.heads import HeadConfig, MTPHead
from specdec.heads.module import init_from_target
from specdec.training.chain import run_chains
from specdec.training.data import TokenStream
from specdec.training.losses import LOSSES
from specdec.training.target import Target
from tests.helpers.tiny_models import FAMILIES, make_target

STEPS = 3
LENGTHS = (9, 4, 14, 5, 1, 8)  # 4 and 1: behind a start token, too short for a chain that has its label


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """For each family a target and a head that differs from its last layer."""
    made = {}
    for family in FAMILIES:
        target = Target(make_target(tmp_path_factory.mktemp(family), family), torch.float32)
        head = MTPHead(HeadConfig.for_target(target.config))
        init_from_target(head, target.model, 0.5, torch.Generator().manual_seed(0))
        made[family] = target, head
    return made


def documents():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 250, (n,), generator=generator).tolist() for n in LENGTHS]


def loss_and_gradient(target, head, stream, loss, length, labelled):
    """Sum over the chains of the stream as one window, with one more token behind it as the trainer has it."""
    windows = stream.windows(torch.tensor([0]), length)
    chains = run_chains(head, target, windows, target.hidden(windows), STEPS, False, labelled)
    head.zero_grad()
    total = LOSSES[loss](chains.draft_logits, chains.target_logits, chains.labels).sum()
    total.backward()
    return total.detach(), [p.grad.clone() for p in head.parameters()], len(chains.labels)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["e2e-tv", "ce"])
def test_the_packed_loss_is_the_sum_over_documents_alone(parts, family, loss):
    """Tolerance: float32 sums in another order. A chain that reads or sees across a boundary changes it by far more."""
    target, head = parts[family]
    labelled = loss == "ce"
    packed = TokenStream.pack(documents(), 0)
    # Alone, a document is followed by the start token of the next, as in the stream: the window's last anchor has no
    # label, so without it the last chain would be lost that packing keeps.
    alone = [TokenStream.pack([ids, []], 0) for ids in documents()[:-1]] + [TokenStream.pack([documents()[-1]], 0)]
    whole = loss_and_gradient(target, head, packed, loss, len(packed), labelled)
    singles = [loss_and_gradient(target, head, s, loss, len(s), labelled) for s in alone if len(s) > STEPS + 1]
    assert whole[2] == sum(count for *_, count in singles) > 15
    torch.testing.assert_close(whole[0], torch.stack([total for total, *_ in singles]).sum(), rtol=1e-5, atol=1e-5)
    for packed_gradient, *single_gradients in zip(whole[1], *(g for _, g, _ in singles), strict=True):
        torch.testing.assert_close(packed_gradient, sum(single_gradients), rtol=1e-3, atol=1e-4)


def test_labels_are_of_the_same_document(parts):
    """The start token of the next document is no label; distributions are compared up to the document's last token."""
    target, head = parts["llama"]
    windows = TokenStream.pack(documents(), 0).windows(torch.tensor([0]), sum(LENGTHS) + len(LENGTHS))
    hidden = target.hidden(windows)
    with_labels = run_chains(head, target, windows, hidden, STEPS, False, labelled=True).labels
    without = run_chains(head, target, windows, hidden, STEPS, False).labels
    assert (with_labels != 0).all()
    assert len(without) - len(with_labels) == (without[:, -1] == 0).sum() == 4 and (without[:, :-1] != 0).all()
