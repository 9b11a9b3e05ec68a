"""One test per format and fault: what is read, lazily and in order, and the sentence that names what is broken."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from specdec.errors import SpecdecError
from specdec.training.formats import Chat, Fields, Tokens, format_of, read_documents

CHAT = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]


def contents(*paths, **fields):
    return [document.content for document in read_documents(paths, Fields(**fields))]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_files_folders_and_jsonl(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text("one")
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "c.jsonl").write_text('{"text": "three"}\n\n{"text": "four\u2028still four"}\n')
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)  # must not be followed for ever
    assert contents(tmp_path) == ["two", "three", "four\u2028still four", "one"]
    assert contents(tmp_path / "b.md", tmp_path / "deep") == ["two", "one"]
    origins = [d.origin for d in read_documents([tmp_path])]
    assert origins[1:3] == [f"line 1 of {tmp_path / 'c.jsonl'}", f"line 3 of {tmp_path / 'c.jsonl'}"]


def test_documents_of_tokens_and_chats(tmp_path):
    """What a model sampled is kept as tokens: as text it might come back to others."""
    path = write_lines(
        tmp_path / "a.jsonl",
        {"token_ids": [5, 6], "prompt_tokens": 1, "text": "not read"},
        {"token_ids": [7], "add_start_token": False},
        {"messages": CHAT, "text": "rendered otherwise"},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}], "tools": [{"name": "f"}]},
        {"text": None},
        {"messages": []},
        {"text": "x"},
    )
    calls = Chat([{"role": "assistant", "content": "", "tool_calls": [1]}], [{"name": "f"}])
    assert contents(path) == [Tokens([5, 6], 1), Tokens([7], None, False), Chat(CHAT), Chat(CHAT), calls, "x"]


def test_fields_by_name(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"body": "x", "dialog": CHAT, "text": "other"})
    assert contents(path, text="body") == ["x"]
    assert contents(path, text="body", messages="dialog") == [Chat(CHAT)]
    with pytest.raises(SpecdecError, match=r'line 1 of .*a.jsonl is not an object with "nope": .* --text-field'):
        contents(path, text="nope")


def test_missing_empty_and_foreign_data(tmp_path):
    with pytest.raises(SpecdecError, match=r"no data at .*nowhere"):
        contents(tmp_path / "nowhere")
    with pytest.raises(SpecdecError, match="holds no text"):
        contents(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SpecdecError, match=r"a.txt holds no text"):
        contents(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"fine\n\xff\xfe not")
    with pytest.raises(SpecdecError, match=r"b.txt is not UTF-8 text .* at byte 5"):
        contents(tmp_path)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2 of {} is not a JSON object"),
        ('{"body": "x"}', 'line 2 of {} is not an object with "token_ids" or "messages"'),
        ('"text"', "line 2 of {} is not an object"),
        ("[" * 100_000, "line 2 of {} is not a JSON object"),
        ('{"text": 3}', '"text" in line 2 of {} is 3, not a text'),
        ('{"token_ids": [1, -2]}', '"token_ids" in line 2 of {} is [1, -2], not a list of token ids'),
        ('{"token_ids": [1.5]}', '"token_ids" in line 2 of {} is [1.5]'),
        ('{"token_ids": [1], "prompt_tokens": 2}', '"token_ids" in line 2 of {} has 1 tokens, but prompt_tokens is 2'),
        ('{"token_ids": [1], "add_start_token": "no"}', "comes with add_start_token 'no'"),
        ('{"messages": "hi"}', '"messages" in line 2 of {} is not a list of messages'),
        ('{"messages": ["hi"]}', 'message 1 of "messages" in line 2 of {} is not an object'),
        ('{"messages": [{"role": "user", "content": "x"}, {"content": "x"}]}', 'message 2 of "messages" in line 2 of'),
        ('{"messages": [{"role": "user", "content": 3}]}', 'has no "content" text'),
    ],
)
def test_bad_jsonl_line(tmp_path, line, fault):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line)
    with pytest.raises(SpecdecError) as caught:
        contents(path)
    message = str(caught.value)
    assert fault.format(path) in message and "\n" not in message and len(message) < 400


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        monkeypatch.setattr(
            "pathlib.Path.open", lambda *a: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    with pytest.raises(SpecdecError, match=r"a.txt cannot be read \(Permission denied\)"):
        contents(path)


def test_a_long_text_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("specdec.training.formats.text.PIECE", 10)
    path = tmp_path / "a.txt"
    path.write_text("één\ntwo\nthree\nfour, longer than a piece\nfive")
    documents = list(read_documents([path]))
    assert [d.content for d in documents] == ["één\ntwo\n", "three\n", "four, longer than a piece\n", "five"]
    assert documents[1].origin == f"{path} at byte 10"
    path.write_bytes(b"fine and\nmore\n\xff")
    with pytest.raises(SpecdecError, match="at byte 14"):
        contents(path)


def test_reading_is_lazy(tmp_path):
    """A fault further down does not keep the first documents back, so no file is read as a whole."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{')
    documents = read_documents([path])
    assert next(documents).content == "x"
    with pytest.raises(SpecdecError, match="line 2"):
        next(documents)


def test_parquet(tmp_path):
    table = pa.table(
        {"text": ["one", None, "three"], "messages": [CHAT, CHAT, None], "id": [1, 2, 3], "token_ids": [[1], [2], [3]]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.select(["text"]), tmp_path / "no_suffix", row_group_size=1)
    assert contents(tmp_path) == [Tokens([1]), Tokens([2]), Tokens([3])]
    assert contents(tmp_path / "a.parquet", text="text") == ["one", "three"]
    assert contents(tmp_path / "a.parquet", messages="messages") == [Chat(CHAT)] * 2
    assert contents(tmp_path / "no_suffix") == ["one", "three"]
    mixed = pa.table({"text": ["one", None, None], "token_ids": [None, [2], None]})  # each row in a column of its own
    pq.write_table(mixed, tmp_path / "mixed.parquet")
    assert contents(tmp_path / "mixed.parquet") == ["one", Tokens([2])]
    with pytest.raises(SpecdecError, match=r"has the columns text, messages, id, token_ids, but no body: .*--text"):
        contents(tmp_path / "a.parquet", text="body")
    with pytest.raises(SpecdecError, match=r'"id" in row 1 of .*a.parquet is 1, not a text'):
        contents(tmp_path / "a.parquet", text="id")


@pytest.mark.parametrize("damage", ["text", "cut", "pages"])
def test_damaged_parquet(tmp_path, damage):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{i} words" for i in range(1000)]}), path, use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(
        {"text": b"hello", "cut": whole[:-100], "pages": whole[:4] + b"\xff" * 2000 + whole[2004:]}[damage]
    )
    with pytest.raises(SpecdecError, match=r"a.parquet is not a readable parquet file .* write it again") as caught:
        contents(path)
    assert "\n" not in str(caught.value)


def test_datasets_folder(tmp_path):
    dataset = Dataset.from_list([{"text": f"row {i}", "id": i} for i in range(600)])
    dataset.shuffle(seed=0).select(range(300)).save_to_disk(tmp_path / "one")  # goes through an index of rows
    assert contents(tmp_path / "one") == dataset.shuffle(seed=0)[:300]["text"]
    chats = Dataset.from_list([{"messages": CHAT}])
    DatasetDict({"train": chats, "test": dataset}).save_to_disk(tmp_path / "two")
    assert contents(tmp_path / "two") == [Chat(CHAT)]
    assert len(contents(tmp_path / "two" / "test")) == 600
    DatasetDict({"a": chats, "b": dataset}).save_to_disk(tmp_path / "three")
    with pytest.raises(SpecdecError, match=r"holds the splits a, b: give the folder of one"):
        contents(tmp_path / "three")
    assert contents(tmp_path / "three" / "a") == [Chat(CHAT)]
    with pytest.raises(SpecdecError, match="has the columns text, id, but no body"):
        contents(tmp_path / "one", text="body")
    (tmp_path / "all").mkdir()
    (tmp_path / "one").rename(tmp_path / "all" / "one")  # a folder of folders is searched
    assert len(contents(tmp_path / "all")) == 300


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_damaged_datasets_folder(tmp_path, file):
    Dataset.from_list([{"text": "x" * 1000}]).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / file).write_bytes(b"{")
    with pytest.raises(SpecdecError, match=r"d is not a readable datasets folder .* save_to_disk") as caught:
        contents(tmp_path / "d")
    assert "\n" not in str(caught.value)


def test_each_path_finds_its_format(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "a.json").write_text("")
    names = {p: type(format_of(tmp_path / p)).__name__ for p in ("a.jsonl", "a.json", ".")}
    assert names == {"a.jsonl": "JsonLines", "a.json": "Text", ".": "NoneType"}


def test_documents_belong_to_their_file_or_to_what_a_field_says(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"text": "x", "kind": "math"}, {"text": "y", "kind": 7})
    (tmp_path / "b.txt").write_text("z")
    pq.write_table(pa.table({"text": ["x"], "kind": [None], "more": [1]}), tmp_path / "c.parquet")

    def groups(*paths, **fields):
        return [document.group for document in read_documents(paths, Fields(**fields))]

    assert groups(tmp_path) == [str(path), str(path), str(tmp_path / "b.txt"), str(tmp_path / "c.parquet")]
    assert groups(path, tmp_path / "c.parquet", by="kind") == ["math", "7", "None"]
    for name, message in (
        ("a.jsonl", "line 1 of .*a.jsonl has no field 'domain'"),
        ("b.txt", "b.txt has no fields, so no 'domain'"),
        ("c.parquet", "c.parquet has no column 'domain', only text, kind, more"),
    ):
        with pytest.raises(SpecdecError, match=message):
            groups(tmp_path / name, by="domain")
