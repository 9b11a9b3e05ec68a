"""From encoded documents to windows: documents kept apart, nothing lost, the order fixed by the seed."""

import numpy as np
import pytest
import torch

from specdec.errors import SpecdecError
from specdec.training.batches import Batches, held_out_windows
from specdec.training.data import TokenStream, load_streams, split
from specdec.training.encode import Encoded

STREAM = TokenStream.pack([[5, 6, 7], [8], [9, 10, 11, 12]], start=0)


def encoded(*documents, counted=None):
    return [Encoded(np.asarray(ids, dtype=np.int32), counted) for ids in documents]


def test_packing_and_positions():
    assert STREAM.tokens.tolist() == [0, 5, 6, 7, 0, 8, 0, 9, 10, 11, 12]
    assert STREAM.documents.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    windows = STREAM.windows(torch.tensor([0, 2]), 9)
    assert windows.position_ids().tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 1, 0, 1, 0, 1, 2, 3, 4]]


def test_chains_stay_in_their_document():
    windows = STREAM.windows(torch.tensor([0]), 11)
    assert windows.whole_chains(2).tolist() == [[True, True, False, False, False, False, True, True, True]]
    assert windows.whole_chains(2, labelled=True).tolist() == [[True] + [False] * 5 + [True, True, False]]
    assert not windows.one_document_each()
    assert STREAM.windows(torch.tensor([6]), 5).one_document_each()


def test_chains_whose_predictions_count():
    """The chain at j predicts j + 2 .. j + steps + 1; with tokens 3..6 counted and two steps that is j = 1..3."""
    counted = np.array([False] * 3 + [True] * 4 + [False] * 3)
    stream = TokenStream.of(encoded(range(10), counted=counted))
    windows = stream.windows(torch.tensor([0]), 10)
    assert windows.whole_chains(2).nonzero()[:, 1].tolist() == [1, 2, 3]
    assert windows.whole_chains(4).nonzero()[:, 1].tolist() == [1]
    assert not windows.whole_chains(5).any()
    mixed = TokenStream.of([*encoded(range(10), counted=counted), *encoded(range(4))])
    assert mixed.counted.tolist() == [*counted, True, True, True, True]


def test_split_is_fixed_and_complete():
    documents = encoded(*([0, i, i + 1, i + 2] for i in range(200)))
    train, held_out = split(documents)
    assert len(train) + len(held_out) == 200 and 2 <= len(held_out) <= 25
    tokens = sorted(d.ids.tolist() for d in held_out)
    assert sorted(d.ids.tolist() for d in split(documents[::-1])[1]) == tokens


def test_few_documents_are_cut_where_they_stand():
    train, held_out = split(encoded(range(30), range(30, 50)))
    assert [d.ids.tolist() for d in train] == [list(range(30)), list(range(30, 45))]
    assert [d.ids.tolist() for d in held_out] == [list(range(45, 50))]


@pytest.mark.parametrize("length", [10, 23, 100, 999])
def test_every_anchor_is_in_one_window_of_an_epoch(length):
    """K = 3: a window's anchors 0..length-5 are whole. Only the last window, moved back to the end, repeats some."""
    stream = TokenStream.pack([list(range(1, 1000))], start=0)
    batches = Batches(stream, 1, length, seed=3, overlap=4)
    anchors = torch.cat([batches[i].tokens[0, : length - 4] for i in range(batches.per_epoch)])
    assert anchors.unique().tolist() == list(range(1000 - 4))
    assert len(anchors) < 1000 - 4 + length


def test_batches_depend_on_the_seed_and_the_step_alone():
    batches, again = (Batches(TokenStream.pack([list(range(1000))], 0), 4, 10, seed=3, overlap=2) for _ in range(2))
    assert torch.equal(again[300].tokens, batches[300].tokens)
    assert not torch.equal(Batches(batches.stream, 4, 10, seed=4, overlap=2)[0].tokens, batches[0].tokens)
    numbers = torch.cat([batches.numbers(batches.places(step)) for step in range(batches.per_epoch)]).view(4, -1)
    assert all(sorted(epoch) == list(range(batches.per_epoch)) for epoch in numbers.tolist())
    assert len({tuple(epoch) for epoch in numbers.tolist()}) == 4  # each in an order of its own


def test_windows_in_which_nothing_counts_are_left_out():
    counted = np.zeros(100, dtype=bool)
    counted[45:47] = True
    stream = TokenStream.of(encoded(range(100), counted=counted))
    batches = Batches(stream, 1, 10, seed=0)
    assert batches.per_epoch == 1 and 45 in batches[0].tokens and torch.equal(batches[7].tokens, batches[0].tokens)
    with pytest.raises(SpecdecError, match="no token of the data counts in the loss"):
        Batches(TokenStream.of(encoded(range(100), counted=np.zeros(100, dtype=bool))), 1, 10, seed=0)


def test_held_out_windows_in_which_something_counts():
    counted = np.zeros(100, dtype=bool)
    counted[[5, 25, 95]] = True
    stream = TokenStream.of(encoded(range(100), counted=counted))
    firsts = [[w.tokens[:, 0].tolist() for w in held_out_windows(stream, 2, 10, n)] for n in (8, 2)]
    assert firsts == [[[0, 20], [90]], [[0, 90]]]


def test_data_shorter_than_a_window():
    assert Batches(STREAM, 1, 11, seed=0).per_epoch == 1
    with pytest.raises(SpecdecError, match="fewer than one window"):
        Batches(STREAM, 4, 12, seed=0)


def test_the_fingerprint_tells_streams_apart():
    counted = np.array([True, False, True])
    streams = [
        TokenStream.of(documents)
        for documents in (
            encoded([1, 2, 3]),
            encoded([1, 2], [3]),
            encoded([1, 2, 4]),
            encoded([1, 2, 3], counted=counted),
        )
    ]
    assert len({s.fingerprint for s in streams}) == 4
    assert streams[0].fingerprint == TokenStream.of(encoded([1, 2, 3])).fingerprint


def test_held_out_windows_spread_over_the_text():
    stream = TokenStream.pack([list(range(1, 100))], start=0)
    parts = held_out_windows(stream, rows=2, length=20, count=3)
    assert [len(part.tokens) for part in parts] == [2, 1]
    assert parts[0].tokens[0, 0] == 0 and parts[1].tokens[0, -1] == 99
    assert sum(len(p.tokens) for p in held_out_windows(stream, 2, 20, 64)) == 5  # no window twice


def test_streams_of_files(tmp_path):
    class Tokenizer:
        bos_token_id, eos_token_id = None, 127

        def __len__(self):
            return 128

        def __call__(self, texts, **_):
            return {"input_ids": [[ord(c) for c in text] for text in texts]}

    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt").write_text("d")
    seen = []
    train, held_out = load_streams(Tokenizer(), [tmp_path], [tmp_path / "b.txt"], progress=lambda *n: seen.append(n))
    assert train.tokens.tolist() == [127, 97, 98, 99, 127, 100] and held_out.tokens.tolist() == [127, 100]
