"""What a format of training data is: a reader that yields documents one by one, each with the place it came from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from specdec.errors import SpecdecError
from specdec.training.formats.messages import check_messages


@dataclass(frozen=True)
class Chat:
    """A conversation. messages: {"role", "content", ...} each; tools: what the template shows as callable, or None."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Tokens:
    """A document that is tokens already, as `specdec generate` writes them.

    prompt: how many of them the model was given rather than sampled, None: not known. start: whether the tokenizer's
    start token belongs before them (a rendered chat brings what its template says).
    """

    ids: list[int]
    prompt: int | None = None
    start: bool = True


@dataclass(frozen=True)
class Document:
    """content: a text, tokens or a chat; origin: where it stands ("line 3 of a.jsonl"), for error messages.

    group: what its figures are shown under: the value of Fields.by, or else its file.
    """

    content: str | Tokens | Chat
    origin: str
    group: str | None = None

    def is_blank(self) -> bool:
        return not self.content.strip() if isinstance(self.content, str) else len(self) == 0

    def __len__(self) -> int:
        """In characters, tokens, or about the characters of a chat: what it costs to encode."""
        content = self.content
        if isinstance(content, str):
            return len(content)
        if isinstance(content, Tokens):
            return len(content.ids)
        return sum(len(str(message)) for message in content.messages)


@dataclass(frozen=True)
class Fields:
    """Which fields (columns) of a record are read. Those named here alone, or else the usual names, in this order.

    by: the field that says what group a document belongs to.
    """

    text: str | None = None
    messages: str | None = None
    by: str | None = None

    def candidates(self) -> dict[str, str]:
        """Field name -> what it holds. The first that a record has counts: tokens are more exact than their text."""
        if self.text is None and self.messages is None:
            return {"token_ids": "tokens", "messages": "messages", "conversations": "messages", "text": "text"}
        named = {self.messages: "messages", self.text: "text"}
        return {name: kind for name, kind in named.items() if name is not None}

    def columns(self, present: Sequence[str], path: Path) -> list[str]:
        """Those of a table's columns that `document` reads. SpecdecError: none of them holds documents."""
        wanted = self.candidates()
        if not wanted.keys() & set(present):
            raise SpecdecError(
                f"{path} has the columns {', '.join(present) or '(none)'}, but no {' or '.join(wanted)}: "
                "name the right one with --text-field or --messages-field"
            )
        if self.by is not None and self.by not in present:
            raise SpecdecError(f"{path} has no column {self.by!r}, only {', '.join(present)}: name another with --by")
        return [name for name in present if name in wanted or name in _BESIDE or name == self.by]

    def document(self, record: Any, origin: str) -> Document | None:
        """The document in a record; None where all its fields are null. SpecdecError: no such field, a wrong type."""
        candidates = self.candidates()
        present = [n for n in candidates if n in record] if isinstance(record, Mapping) else []
        if not present:
            quoted = " or ".join(f'"{n}"' for n in candidates)
            raise SpecdecError(
                f"{origin} is not an object with {quoted}: mend or remove it, or name its field with --text-field or "
                "--messages-field"
            )
        name = next((n for n in present if record[n] is not None), None)  # tables hold nulls for what a row lacks
        if name is None:
            return None
        content = _READERS[candidates[name]](record[name], record, f'"{name}" in {origin}')
        return Document(content, origin, self._group(record, origin))

    def _group(self, record: Mapping[str, Any], origin: str) -> str | None:
        if self.by is None:
            return None
        if self.by not in record:
            raise SpecdecError(f"{origin} has no field {self.by!r}: add it to every record, or name another with --by")
        return str(record[self.by])


USUAL_FIELDS = Fields()
_BESIDE = ("prompt_tokens", "add_start_token", "tools")  # fields that say more about a document


def _text(value: Any, record: Mapping[str, Any], place: str) -> str:
    if not isinstance(value, str):
        raise SpecdecError(f"{place} is {_shown(value)}, not a text: mend or remove it")
    return value


def _tokens(value: Any, record: Mapping[str, Any], place: str) -> Tokens:
    if not (isinstance(value, list) and all(type(i) is int and i >= 0 for i in value)):
        raise SpecdecError(f"{place} is {_shown(value)}, not a list of token ids from 0 up: mend or remove it")
    prompt, start = record.get("prompt_tokens"), record.get("add_start_token")
    if prompt is not None and not (type(prompt) is int and 0 <= prompt <= len(value)):
        raise SpecdecError(
            f"{place} has {len(value)} tokens, but prompt_tokens is {_shown(prompt)}: give a number up to {len(value)}"
        )
    if start is not None and type(start) is not bool:
        raise SpecdecError(f"{place} comes with add_start_token {_shown(start)}: give true or false")
    return Tokens(value, prompt, start is not False)


def _messages(value: Any, record: Mapping[str, Any], place: str) -> Chat:
    return Chat(check_messages(value, place), record.get("tools") or None)


_READERS: dict[str, Callable[[Any, Mapping[str, Any], str], str | Tokens | Chat]] = {
    "text": _text,
    "tokens": _tokens,
    "messages": _messages,
}


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


class Format(Protocol):
    """One way in which documents lie on disk. Reading runs nothing that the data holds."""

    suffixes: tuple[str, ...]  # of the files that a folder is searched for

    def fits(self, path: Path) -> bool:
        """Whether this reads the file or folder at `path`, which exists."""
        ...

    def read(self, path: Path, fields: Fields) -> Iterator[Document]:
        """The documents in their order, lazily. SpecdecError names the path, the line or row, and the remedy."""
        ...
