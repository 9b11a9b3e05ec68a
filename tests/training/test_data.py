"""From files to windows: documents kept apart, faults named, the order fixed by the seed."""

import json
import os

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.training.data import Batches, TokenStream, held_out_windows, read_documents, split, tokenize

STREAM = TokenStream.pack([[5, 6, 7], [8], [9, 10, 11, 12]], start=0)


def test_reads_files_folders_and_jsonl(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text("one")
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "c.jsonl").write_text('{"text": "three"}\n\n{"text": "four\u2028still four"}\n')
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    (tmp_path / "blank.txt").write_text(" \n")
    assert read_documents([tmp_path]) == ["two", "three", "four\u2028still four", "one"]
    assert read_documents([tmp_path / "b.md", tmp_path / "deep"]) == ["two", "one"]


def test_missing_empty_and_foreign_data(tmp_path):
    with pytest.raises(SpecdecError, match=r"no data at .*nowhere"):
        read_documents([tmp_path / "nowhere"])
    with pytest.raises(SpecdecError, match="holds no text"):
        read_documents([tmp_path])
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SpecdecError, match=r"a.txt holds no text"):
        read_documents([tmp_path / "a.txt"])
    (tmp_path / "b.txt").write_bytes(b"fine \xff\xfe not")
    with pytest.raises(SpecdecError, match=r"b.txt is not UTF-8 text .* at byte 5"):
        read_documents([tmp_path])


def test_jsonl_of_token_ids(tmp_path):
    """What a model sampled is kept as tokens: as text it might come back to others."""
    (tmp_path / "a.jsonl").write_text('{"token_ids": [5, 6]}\n{"text": "x"}\n{"token_ids": []}\n')
    documents = read_documents([tmp_path])
    assert documents == [[5, 6], "x"]
    assert tokenize(Tokenizer(), documents) == [[5, 6], [ord("x")]]
    with pytest.raises(SpecdecError, match="token id 128, but the target's tokenizer has 128"):
        tokenize(Tokenizer(), [[128], "x"])


class Tokenizer:
    def __len__(self):
        return 128

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


@pytest.mark.parametrize(
    "line", ["{", '{"body": "x"}', '"text"', '{"text": 3}', '{"token_ids": [1, -2]}', '{"token_ids": [1.5]}']
)
def test_bad_jsonl_line(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + line)
    with pytest.raises(SpecdecError, match=r"line 2 of .*a.jsonl is not a JSON object"):
        read_documents([tmp_path])


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        monkeypatch.setattr(
            "pathlib.Path.read_text", lambda *a: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    with pytest.raises(SpecdecError, match=r"a.txt cannot be read \(Permission denied\)"):
        read_documents([path])


def test_packing_and_positions():
    assert STREAM.tokens.tolist() == [0, 5, 6, 7, 0, 8, 0, 9, 10, 11, 12]
    assert STREAM.documents.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    windows = STREAM.windows(torch.tensor([0, 2]), 9)
    assert windows.position_ids().tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 1, 0, 1, 0, 1, 2, 3, 4]]


def test_chains_stay_in_their_document():
    windows = STREAM.windows(torch.tensor([0]), 11)
    assert windows.whole_chains(2).tolist() == [[True, True, False, False, False, False, True, True, True]]
    assert not windows.one_document_each()
    assert STREAM.windows(torch.tensor([6]), 5).one_document_each()


def test_split_is_fixed_and_complete():
    documents = [[i, i + 1, i + 2] for i in range(200)]
    train, held_out = split(documents)
    assert sorted(train + held_out) == documents and 2 <= len(held_out) <= 25
    assert sorted(split(documents[::-1])[1]) == sorted(held_out)
    assert split([list(range(50))]) == ([list(range(45))], [list(range(45, 50))])


def test_batches_visit_everything_once_an_epoch_and_depend_on_the_seed_alone():
    stream = TokenStream.pack([list(range(1, 1000))], start=0)
    batches, again = Batches(stream, 4, 10, seed=3), Batches(stream, 4, 10, seed=3)
    epoch = torch.cat([batches[i].tokens for i in range(batches.per_epoch // 4)])
    assert epoch.flatten().unique().numel() == epoch.numel()
    assert torch.equal(again[30].tokens, batches[30].tokens)
    assert not torch.equal(Batches(stream, 4, 10, seed=4)[0].tokens, batches[0].tokens)
    with pytest.raises(SpecdecError, match="fewer than one window"):
        Batches(stream, 4, 1000, seed=0)


def test_held_out_windows_spread_over_the_text():
    stream = TokenStream.pack([list(range(1, 100))], start=0)
    parts = held_out_windows(stream, rows=2, length=20, count=3)
    assert [len(part.tokens) for part in parts] == [2, 1]
    assert parts[0].tokens[0, 0] == 0 and parts[1].tokens[0, -1] == 99
    assert sum(len(p.tokens) for p in held_out_windows(stream, 2, 20, 64)) == 5  # no window twice
