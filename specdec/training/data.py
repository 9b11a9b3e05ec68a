"""Text on disk -> one stream of tokens with document starts -> windows.

Files: .jsonl (an object per line, one document each, with "text", or with "token_ids" as `specdec generate` writes
them: text that a model sampled does not always come back to the same tokens); any other file is one document. Folders
are searched for *.py, *.txt, *.md and *.jsonl. Every document stands behind the tokenizer's start token.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from specdec.errors import SpecdecError

SUFFIXES = (".py", ".txt", ".md", ".jsonl")
Document: TypeAlias = str | list[int]  # a text, or the token ids of one, without a start token

HELD_OUT_SHARE = 20  # one document in so many is held out where no evaluation data is given


def read_documents(paths: Sequence[str | Path]) -> list[Document]:
    """All documents under the paths, in a fixed order. SpecdecError: missing, unreadable, no text."""
    documents: list[Document] = []
    for path in map(Path, paths):
        found = [document for file in _files(path) for document in _read(file) if not _is_blank(document)]
        if not found:
            raise SpecdecError(
                f'{path} holds no text: give a file with text, .jsonl lines with a "text" field, '
                f"or a folder with {', '.join('*' + s for s in SUFFIXES)} files"
            )
        documents += found
    return documents


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise SpecdecError(f"there is no data at {path}: check the path")
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    return [path]


def _is_blank(document: Document) -> bool:
    return not (document.strip() if isinstance(document, str) else document)


def _read(path: Path) -> Iterable[Document]:
    try:
        content = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SpecdecError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert or leave it out"
        ) from None
    except OSError as error:
        raise SpecdecError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    if path.suffix != ".jsonl":
        return [content]
    return [_json_document(path, number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def _json_document(path: Path, number: int, line: str) -> Document:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if isinstance(content, dict):
        text, ids = content.get("text"), content.get("token_ids")
        if isinstance(text, str):
            return text
        if isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids):
            return ids
    raise SpecdecError(
        f'line {number} of {path} is not a JSON object with a "text" string or a "token_ids" list: mend or remove it'
    )


def start_token(tokenizer: Any) -> int:
    """The id that opens a document: the tokenizer's BOS, or its EOS where it has none. Raises SpecdecError."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise SpecdecError("the target's tokenizer has neither a BOS nor an EOS token: documents cannot be told apart")
    return int(token)


@dataclass(frozen=True)
class TokenStream:
    """Documents end to end. tokens [N] int64; documents [N] int64: number of each token's document."""

    tokens: Tensor
    documents: Tensor

    @classmethod
    def pack(cls, documents: Sequence[Sequence[int]], start: int) -> "TokenStream":
        lengths = torch.tensor([len(ids) + 1 for ids in documents])
        tokens = np.concatenate([np.asarray([start, *ids], dtype=np.int64) for ids in documents])
        return cls(torch.from_numpy(tokens), torch.repeat_interleave(torch.arange(len(documents)), lengths))

    def __len__(self) -> int:
        return len(self.tokens)

    def windows(self, offsets: Tensor, length: int) -> "Windows":
        index = offsets[:, None] + torch.arange(length)
        return Windows(self.tokens[index], self.documents[index])


@dataclass(frozen=True)
class Windows:
    """Stretches of the stream. tokens [B, T] int64; documents [B, T] int64, equal within a document."""

    tokens: Tensor
    documents: Tensor

    def one_document_each(self) -> bool:
        return bool((self.documents[:, 0] == self.documents[:, -1]).all())

    def position_ids(self) -> Tensor:
        """Position of each token in the part of its document that the window shows, [B, T]: serving counts likewise."""
        index = torch.arange(self.tokens.shape[1]).expand_as(self.tokens)
        starts = torch.zeros_like(self.documents, dtype=torch.bool)
        starts[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        return index - torch.where(starts, index, 0).cummax(dim=1).values

    def whole_chains(self, steps: int) -> Tensor:
        """Which anchors 0..T-steps-1 have all of the next `steps` tokens in their own document, bool [B, T - steps]."""
        anchors = self.tokens.shape[1] - steps
        return self.documents[:, :anchors] == self.documents[:, steps:]


def load_streams(
    tokenizer: Any, data: Sequence[str | Path], eval_data: Sequence[str | Path]
) -> tuple[TokenStream, TokenStream]:
    """(training, held-out) streams; without eval_data a fixed twentieth of the documents is held out."""
    start = start_token(tokenizer)
    documents = tokenize(tokenizer, read_documents(data))
    if eval_data:
        held_out = tokenize(tokenizer, read_documents(eval_data))
    else:
        documents, held_out = split(documents)
    return TokenStream.pack(documents, start), TokenStream.pack(held_out, start)


def tokenize(tokenizer: Any, documents: Sequence[Document]) -> list[list[int]]:
    """Token ids of each document, without special tokens. SpecdecError: ids that the tokenizer does not have."""
    texts = [d for d in documents if isinstance(d, str)]
    of_texts = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else ())
    ids = [next(of_texts) if isinstance(d, str) else d for d in documents]
    largest = max((max(d, default=0) for d in documents if not isinstance(d, str)), default=0)
    if largest >= len(tokenizer):
        raise SpecdecError(
            f"the data holds token id {largest}, but the target's tokenizer has {len(tokenizer)}: "
            "they are another model's tokens; generate them with this one"
        )
    return ids


def split(documents: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """(training, held-out): by a hash of each document's tokens, so the same on every run whatever the order.

    Where no document falls on one of the sides, the last tenth of the tokens is held out instead.
    """
    sides: tuple[list[list[int]], list[list[int]]] = ([], [])
    for ids in documents:
        digest = hashlib.sha256(np.asarray(ids, dtype=np.int64).tobytes()).digest()
        sides[int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0].append(ids)
    if all(sides):
        return sides
    flat = [token for ids in documents for token in ids]
    cut = len(flat) - max(1, len(flat) // 10)
    return [flat[:cut]], [flat[cut:]]


class Batches:
    """Batch number `step` of shuffled windows, a pure function of (seed, step), so that a resumed run goes on exactly.

    Each epoch visits non-overlapping windows in a fresh order, shifted by a fresh offset.
    """

    def __init__(self, stream: TokenStream, rows: int, length: int, seed: int) -> None:
        if len(stream) <= length:
            raise SpecdecError(
                f"the data has {len(stream)} tokens, fewer than one window of {length}: add text or lower --seq-len"
            )
        self.stream, self.rows, self.length, self.seed = stream, rows, length, seed
        self.per_epoch = max(1, (len(stream) - length) // length)

    def __getitem__(self, step: int) -> Windows:
        numbers = range(step * self.rows, (step + 1) * self.rows)
        return self.stream.windows(torch.tensor([self._offset(n) for n in numbers]), self.length)

    def _offset(self, number: int) -> int:
        epoch, index = divmod(number, self.per_epoch)
        order, shift = self._epoch(epoch)
        return int(order[index]) * self.length + shift

    def _epoch(self, epoch: int) -> tuple[np.ndarray, int]:
        if getattr(self, "_cached", (None,))[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(self.per_epoch)
            shift = int(rng.integers(0, len(self.stream) - self.per_epoch * self.length + 1))
            self._cached = (epoch, order, shift)
        return self._cached[1], self._cached[2]


def held_out_windows(stream: TokenStream, rows: int, length: int, count: int) -> list[Windows]:
    """`count` windows evenly spread over the stream, `rows` at a time; fewer where the stream is shorter than that."""
    length = min(length, len(stream))
    count = max(1, min(count, len(stream) // length))
    offsets = torch.linspace(0, len(stream) - length, count).long()
    return [stream.windows(part, length) for part in offsets.split(rows)]
