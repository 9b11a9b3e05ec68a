"""Prompts: cut from held-out text alone, deterministic, of the wanted length."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from specdec.demo.prompts import cut_prompts, held_out_documents
from specdec.errors import SpecdecError

CORPUS = Path(__file__).parents[2] / "examples" / "tiny-lm" / "corpus.py"
TEXT = "".join(f"line {i} = some(code, number={i})\n" for i in range(400))


@pytest.fixture
def model(tmp_path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_windows_alternate_between_beginnings_and_lines(model):
    prompts = cut_prompts([("a.py", TEXT), ("b.py", TEXT)], model, 8)
    assert [p.source.split(":")[1] == "1" for p in prompts] == [True, False] * 4
    assert all(p.token_ids[0] == 0 and 65 <= len(p.token_ids) <= 129 for p in prompts[::2])
    assert all(64 <= len(p.token_ids) <= 128 for p in prompts[1::2])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    for prompt in prompts[1::2]:
        line = int(prompt.source.split(":")[1])
        assert tokenizer.decode(prompt.token_ids).startswith(f"line {line - 1} = ")


def test_the_same_prompts_at_every_call(model):
    documents = [("b.py", TEXT), ("a.py", TEXT + TEXT)]
    assert cut_prompts(documents, model, 5) == cut_prompts(documents[::-1], model, 5)


def test_the_shipped_corpus_gives_enough_held_out_files():
    import hashlib

    documents = held_out_documents(CORPUS)
    assert sum(len(text) > 5120 for _, text in documents) >= 16
    for name, _ in documents:
        assert int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 20 == 0


def test_what_is_missing_is_named(model, tmp_path):
    with pytest.raises(SpecdecError, match=r"nowhere\.py"):
        held_out_documents(tmp_path / "nowhere.py")
    with pytest.raises(SpecdecError, match="None of 1 held-out files"):
        cut_prompts([("a.py", "short")], model, 1)
    (model / "tokenizer.json").unlink()
    with pytest.raises(SpecdecError, match=r"tokenizer\.json"):
        cut_prompts([("a.py", TEXT)], model, 1)
