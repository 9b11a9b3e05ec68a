"""Documents -> token ids as serving sees them, and which of them count in the loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from specdec.errors import SpecdecError
from specdec.training.chat import ChatTemplate, Span, prompt_of
from specdec.training.formats import Chat, Document, Fields, Tokens

LossOn = Literal["all", "assistant"]
BATCH, BATCH_SIZE = 64, 2 << 20  # documents tokenized in one call, and characters: tokenizers use many bytes for each


@dataclass(frozen=True)
class Reading:
    """How data is read. chat_template: a Jinja file instead of the tokenizer's own.

    loss_on: "all" tokens, or only what the "assistant" says. vocab_size: of the target's embedding; None: unknown.
    """

    fields: Fields = field(default_factory=Fields)
    chat_template: Path | None = None
    loss_on: LossOn = "all"
    vocab_size: int | None = None


USUAL_READING = Reading()


class Encoded(NamedTuple):
    """ids int32 [n], the start token included where there is one; counted bool [n], None: all of them count."""

    ids: np.ndarray
    counted: np.ndarray | None = None


def start_token(tokenizer: Any) -> int:
    """The id that opens a document: the tokenizer's BOS, or its EOS where it has none. Raises SpecdecError."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise SpecdecError("the target's tokenizer has neither a BOS nor an EOS token: documents cannot be told apart")
    return int(token)


class Encoder:
    """Encodes documents one batch at a time, in their order.

    A text stands behind the tokenizer's start token, as do tokens unless they say otherwise. A chat is what its
    template makes of it: serving puts nothing before that.
    """

    def __init__(self, tokenizer: Any, reading: Reading = USUAL_READING) -> None:
        self.tokenizer, self.reading = tokenizer, reading
        self.start = start_token(tokenizer)
        unknown = getattr(tokenizer, "unk_token_id", None)
        self.unknown = -1 if unknown is None else unknown
        self.template = ChatTemplate(tokenizer, reading.chat_template)
        if reading.loss_on == "assistant" and not getattr(tokenizer, "is_fast", True):
            raise SpecdecError(
                "--loss-on assistant needs a fast tokenizer (tokenizer.json), which the target lacks: use --loss-on all"
            )

    def __call__(self, documents: Iterable[Document]) -> Iterator[Encoded]:
        """Raises SpecdecError, naming the document: ids beyond the vocabulary, a chat that cannot be rendered,
        nothing that tells the assistant's tokens from others where only they count. At the end: text of which most is
        unknown to the tokenizer."""
        seen = unknown = 0
        for batch in _batches(documents):
            texts = [self._text(d) for d in batch if not isinstance(d.content, Tokens)]
            tokenized = self._tokenize([text for text, _ in texts], [spans for _, spans in texts])
            seen += sum(len(e.ids) for e in tokenized)
            unknown += sum(int((e.ids == self.unknown).sum()) for e in tokenized)
            of_texts = iter(tokenized)
            for document in batch:
                content = document.content
                encoded = self._tokens(document, content) if isinstance(content, Tokens) else next(of_texts)
                if isinstance(content, str):
                    encoded = Encoded(np.concatenate([[self.start], encoded.ids]).astype(np.int32))
                self._check_ids(encoded.ids, document)
                yield encoded
        if unknown > seen / 2:
            raise SpecdecError(
                f"{unknown:,} of the text's {seen:,} tokens are unknown to the target's tokenizer "
                f"({self.tokenizer.unk_token}): give text in a language and script that the target knows"
            )

    def prompt(self, document: Document) -> list[int]:
        """Token ids of a chat up to where the assistant answers last."""
        assert isinstance(document.content, Chat), "only a chat has a prompt of its own"
        chat = prompt_of(document.content)
        if not chat.messages:
            raise SpecdecError(f"{document.origin} has nothing for the assistant to answer: mend or remove it")
        text = self.template.render(chat, document.origin, prompt=True)
        return self._tokenize([text], [None])[0].ids.tolist()

    def _text(self, document: Document) -> tuple[str, list[Span] | None]:
        content = document.content
        only_answers = self.reading.loss_on == "assistant"
        if isinstance(content, Chat):
            text = self.template.render(content, document.origin)
            return text, self.template.answers(content, text, document.origin) if only_answers else None
        assert isinstance(content, str), "tokens need no tokenizer"
        if only_answers:
            raise self._no_roles(document)
        return content, None

    def _tokenize(self, texts: list[str], spans: list[list[Span] | None]) -> list[Encoded]:
        if not texts:
            return []
        wanted = any(s is not None for s in spans)
        offsets = {"return_offsets_mapping": True} if wanted else {}
        out = self.tokenizer(texts, add_special_tokens=False, verbose=False, **offsets)
        ids = [np.asarray(i, dtype=np.int32) for i in out["input_ids"]]
        if not wanted:
            return [Encoded(i) for i in ids]
        begins = [np.asarray([begin for begin, _ in pairs], dtype=np.int64) for pairs in out["offset_mapping"]]
        return [Encoded(i, _inside(b, s or [])) for i, b, s in zip(ids, begins, spans, strict=True)]

    def _tokens(self, document: Document, tokens: Tokens) -> Encoded:
        try:
            ids = np.asarray([self.start, *tokens.ids] if tokens.start else tokens.ids, dtype=np.int32)
        except OverflowError:
            raise self._beyond(max(tokens.ids), document) from None
        if self.reading.loss_on == "all":
            return Encoded(ids)
        if tokens.prompt is None:
            raise self._no_roles(document)
        return Encoded(ids, np.arange(len(ids)) >= tokens.prompt + int(tokens.start))

    def _check_ids(self, ids: np.ndarray, document: Document) -> None:
        largest = int(ids.max(initial=0))
        if isinstance(document.content, Tokens) and largest >= len(self.tokenizer):
            raise self._beyond(largest, document)
        if self.reading.vocab_size is not None and largest >= self.reading.vocab_size:
            raise SpecdecError(
                f"{document.origin} becomes token id {largest}, but the target embeds {self.reading.vocab_size}: its "
                "folder holds another model's tokenizer; copy the right one"
            )

    def _beyond(self, token: int, document: Document) -> SpecdecError:
        return SpecdecError(
            f"{document.origin} holds token id {token}, but the target's tokenizer has {len(self.tokenizer)}: they "
            "are another model's tokens; generate them with this one"
        )

    def _no_roles(self, document: Document) -> SpecdecError:
        return SpecdecError(
            f"--loss-on assistant: {document.origin} does not say what the assistant said; give chats or the output of "
            "`specdec generate`, or use --loss-on all"
        )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if len(batch) == BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _inside(begins: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Which tokens begin within a span, bool [n], from the first character of each [n]."""
    inside = np.zeros(len(begins), dtype=bool)
    for begin, end in spans:
        inside |= (begins >= begin) & (begins < end)
    return inside
