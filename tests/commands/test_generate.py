"""What `specdec generate` asks the engine, and what it writes of the answers: no engine needed."""

import json

import pytest
from transformers import AutoTokenizer

from specdec.commands.generate import _prompts, _record
from specdec.errors import SpecdecError
from specdec.training.encode import Encoder, Reading
from specdec.training.formats import Fields, read_documents
from tests.helpers.tiny_models import END, make_target

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("generate")
    make_target(path / "model")
    (path / "chat.jinja").write_text(TEMPLATE)
    lines = [
        {"chat": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "old"}]}
        for i in range(5)
    ]
    lines.append({"chat": [{"role": "user", "content": "long " * 50}]})
    (path / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "text.txt").write_text("some text to cut prompts from")
    return path


def plan(folder, data="chats.jsonl", **changes):
    return {
        "model": str(folder / "model"), "data": [str(folder / data)], "count": 12, "prompt_tokens": 8,
        "output_tokens": 20, "seed": 0, "messages_field": "chat", "chat_template": str(folder / "chat.jinja"),
        **changes,
    }  # fmt: skip


def test_chats_are_asked_again_in_shuffled_rounds(folder):
    prompts = _prompts(plan(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [tokenizer.decode(ids) for ids in prompts.ids]
    asked = {f"[user]question {i}{END}[assistant]" for i in range(5)}  # the long one leaves no room for an answer
    assert len(texts) == 12 and set(texts[:5]) == set(texts[5:10]) == asked and texts[:5] != texts[5:10]
    assert prompts.end == tokenizer.eos_token_id
    assert _prompts(plan(folder, count=3)).ids == prompts.ids[:3]
    with pytest.raises(SpecdecError, match="none of the 6 chats leaves room for 127 tokens"):
        _prompts(plan(folder, output_tokens=127))


def test_an_answer_is_trained_on_as_it_was_served(folder, tmp_path):
    """Rendered prompt, answer and the token that ended it, with no start token before them; only the answer counts."""
    prompts = _prompts(plan(folder, count=2))
    records = [
        _record(prompts.ids[0], [70, 71], prompts.end, longest=3),
        _record(prompts.ids[1], [70, 71, 72], prompts.end, longest=3),  # cut short: it did not end by itself
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    encoder = Encoder(tokenizer, Reading(loss_on="assistant"))
    first, second = encoder(read_documents([tmp_path / "own.jsonl"]))
    assert first.ids.tolist() == [*prompts.ids[0], 70, 71, 0] and first.counted.sum() == 3
    assert second.ids.tolist() == [*prompts.ids[1], 70, 71, 72] and second.counted.sum() == 3


def test_prompts_cut_from_text(folder):
    prompts = _prompts(plan(folder, "text.txt", messages_field=None, chat_template=None))
    assert prompts.end is None and all(len(ids) == 8 and ids[0] == 0 and 0 not in ids[1:] for ids in prompts.ids)
    assert _record([0, 5, 6], [7], None, longest=3) == {"token_ids": [5, 6, 7], "prompt_tokens": 2}
    assert [d.content for d in read_documents([folder / "text.txt"], Fields())] == ["some text to cut prompts from"]


def test_chats_and_texts_do_not_mix(folder, tmp_path):
    data = [str(folder / "chats.jsonl"), str(folder / "text.txt")]
    with pytest.raises(SpecdecError, match="mixes chats with other documents"):
        _prompts(plan(folder, data=data[0]) | {"data": data})
