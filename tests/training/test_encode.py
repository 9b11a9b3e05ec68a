"""Token ids and what counts in the loss: texts, tokens, and chats through templates of every habit."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from specdec.errors import SpecdecError
from specdec.training.encode import Encoder, Reading
from specdec.training.formats import Chat, Document, Tokens
from tests.helpers.tiny_models import END, make_target

QUESTION = {"role": "user", "content": "2 + 2?"}
CHAT = Chat([QUESTION, {"role": "assistant", "content": "4, sure"}, QUESTION, {"role": "assistant", "content": "5"}])
# ChatML-like, with a line feed behind each turn that the model never says.
PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    + END
    + "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)
# As Qwen3's: only the last answer shows (empty) reasoning, so no shorter chat is a beginning of the longer one.
THINKING = (
    "{% for m in messages %}[{{ m.role }}]{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
    "{{ m.content }}" + END + "\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
# As QwQ's: the prompt opens the reasoning, the finished chat does not show it.
OPENING = PLAIN.replace("[assistant]{% endif %}", "[assistant]<think>{% endif %}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_target(tmp_path_factory.mktemp("target")))


@pytest.fixture
def chat_encoder(tokenizer, tmp_path):
    def make(template, loss_on="assistant", **options):
        (tmp_path / "chat.jinja").write_text(template)
        return Encoder(tokenizer, Reading(chat_template=tmp_path / "chat.jinja", loss_on=loss_on, **options))

    return make


def encode(encoder, *contents):
    return list(encoder(Document(c, f"line {i} of a.jsonl") for i, c in enumerate(contents, 1)))


def counted(tokenizer, encoded):
    """The stretches of text that count, "|" between them."""
    pieces = (
        tokenizer.decode([i]) if c else "|" for i, c in zip(encoded.ids.tolist(), encoded.counted.tolist(), strict=True)
    )
    return "|".join(filter(None, "".join(pieces).split("|")))


def test_texts_and_tokens_stand_behind_the_start_token(tokenizer):
    text, ids, bare = encode(Encoder(tokenizer), "ab", Tokens([5, 6]), Tokens([7], start=False))
    assert text.ids[0] == ids.ids[0] == 0 and tokenizer.decode(text.ids[1:]) == "ab"
    assert ids.ids.tolist() == [0, 5, 6] and bare.ids.tolist() == [7]
    assert text.counted is None and text.ids.dtype == np.int32


@pytest.mark.parametrize("size", [10, 2 << 20])
def test_order_is_kept_across_batches(tokenizer, monkeypatch, size):
    monkeypatch.setattr("specdec.training.encode.BATCH_SIZE", size)
    contents = [Tokens([i % 250]) if i % 3 else "ab" * (i % 5 + 1) for i in range(150)]
    encoded = encode(Encoder(tokenizer), *contents)
    expected = [list(c.ids) if isinstance(c, Tokens) else tokenizer(c)["input_ids"] for c in contents]
    assert [e.ids[1:].tolist() for e in encoded] == expected


def test_a_chat_is_what_serving_makes_of_it(tokenizer, chat_encoder):
    """No start token before it, and each answer counts with the token that ends it, not with what follows."""
    encoder = chat_encoder(PLAIN)
    (encoded,) = encode(encoder, CHAT)
    assert tokenizer.decode(encoded.ids) == f"[user]2 + 2?{END}\n[assistant]4, sure{END}\n" + (
        f"[user]2 + 2?{END}\n[assistant]5{END}\n"
    )
    assert counted(tokenizer, encoded) == f"4, sure{END}|5{END}"
    prompt = encoder.prompt(Document(CHAT, "x"))
    assert tokenizer.decode(prompt).endswith(f"[user]2 + 2?{END}\n[assistant]") and "5" not in tokenizer.decode(prompt)
    assert encode(chat_encoder(PLAIN, "all"), CHAT)[0].counted is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (MARKED, f"4, sure{END}|5{END}"),
        (THINKING, f"4, sure{END}|<think></think>5{END}"),
        (OPENING, f"4, sure{END}|5{END}"),
    ],
)
def test_what_the_assistant_says(tokenizer, chat_encoder, template, expected):
    (encoded,) = encode(chat_encoder(template), CHAT)
    assert counted(tokenizer, encoded) == expected


def test_a_first_message_of_the_assistant_answers_nothing(tokenizer, chat_encoder):
    chat = Chat([{"role": "assistant", "content": "Hi"}, *CHAT.messages])
    assert counted(tokenizer, encode(chat_encoder(PLAIN), chat)[0]) == f"4, sure{END}|5{END}"


def test_what_was_sampled_counts(tokenizer):
    encoder = Encoder(tokenizer, Reading(loss_on="assistant"))
    ids, bare = encode(encoder, Tokens([5, 6, 7], prompt=1), Tokens([5, 6, 7], prompt=1, start=False))
    assert ids.counted.tolist() == [False, False, True, True] and bare.counted.tolist() == [False, True, True]


def test_a_template_with_todays_date_gives_the_same_every_day(tokenizer, chat_encoder):
    encoded = encode(chat_encoder("{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}", "all"), CHAT)[0]
    assert tokenizer.decode(encoded.ids) == "01 Jan 20262 + 2?"


def fails(encoder, content, *words):
    with pytest.raises(SpecdecError) as caught:
        encode(encoder, content)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_faults_name_the_document_and_the_remedy(tokenizer, chat_encoder, tmp_path):
    plain, answers = Encoder(tokenizer), Encoder(tokenizer, Reading(loss_on="assistant"))
    fails(plain, CHAT, "line 1 of a.jsonl is a chat", "no chat template", "--chat-template FILE")
    fails(plain, Tokens([5, 257]), "line 1 of a.jsonl holds token id 257, but the target's tokenizer has 257")
    fails(plain, Tokens([2**40]), f"holds token id {2**40}")
    fails(
        Encoder(tokenizer, Reading(vocab_size=60)), "zzz", "but the target embeds 60: its folder holds another model's"
    )
    fails(answers, "text", "--loss-on assistant: line 1 of a.jsonl does not say", "--loss-on all")
    fails(answers, Tokens([5]), "--loss-on assistant: line 1 of a.jsonl does not say")
    fails(chat_encoder("{{ raise_exception('roles\nmust alternate') }}"), CHAT, "cannot render line 1", "(roles)")
    fails(chat_encoder("{% for %}"), CHAT, "chat.jinja cannot render line 1 of a.jsonl")
    fails(chat_encoder("{{ messages | length }}"), CHAT, "rewrites message 2 of line 1 of a.jsonl", "{% generation %}")
    with pytest.raises(SpecdecError, match=r"--chat-template .*nowhere cannot be read"):
        Encoder(tokenizer, Reading(chat_template=tmp_path / "nowhere"))
    with pytest.raises(SpecdecError, match="has nothing for the assistant to answer"):
        chat_encoder(PLAIN).prompt(Document(Chat(CHAT.messages[1:2]), "line 1 of a.jsonl"))


def test_a_template_cannot_reach_files_or_python(chat_encoder):
    """transformers runs templates in a sandbox; what leads out of it must end as a sentence, not as an action."""
    for template in ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% include '/etc/passwd' %}"):
        fails(chat_encoder(template), CHAT, "cannot render line 1")


def test_text_that_the_tokenizer_does_not_know():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "ab": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>"))
    assert [e.ids.tolist() for e in encode(encoder, "ab не", Tokens([0, 0]))] == [[1, 2, 0], [1, 0, 0]]
    with pytest.raises(SpecdecError, match=r"3 of the text's 5 tokens are unknown to the target's tokenizer \(<unk>\)"):
        encode(encoder, "ab не знает", "не ab")
