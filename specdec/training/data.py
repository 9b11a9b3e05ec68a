"""Encoded documents -> one stream of tokens with document starts -> windows.

Documents are packed end to end. Attention, positions and chains stay within each, so a window of many short documents
trains as each of them alone would.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.training.encode import USUAL_READING, Encoded, Encoder, Reading
from specdec.training.formats import read_documents

HELD_OUT_SHARE = 20  # one document in so many is held out where no evaluation data is given


@dataclass(frozen=True)
class TokenStream:
    """Documents end to end. tokens [N] int32; documents [N] int32: number of each token's document.

    counted [N] bool: which tokens count in the loss when they are predicted; None: all.
    """

    tokens: Tensor
    documents: Tensor
    counted: Tensor | None = None

    @classmethod
    def of(cls, documents: Sequence[Encoded]) -> "TokenStream":
        """Start tokens are taken as they come. Where one document says what counts, all of one that does not does."""
        lengths = torch.tensor([len(d.ids) for d in documents])
        numbers = torch.repeat_interleave(torch.arange(len(documents), dtype=torch.int32), lengths)
        counted = None
        if any(d.counted is not None for d in documents):
            parts = [np.ones(len(d.ids), dtype=bool) if d.counted is None else d.counted for d in documents]
            counted = torch.from_numpy(np.concatenate(parts))
        return cls(torch.from_numpy(np.concatenate([d.ids for d in documents])), numbers, counted)

    @classmethod
    def pack(cls, documents: Sequence[Sequence[int]], start: int) -> "TokenStream":
        """Each document behind the start token."""
        return cls.of([Encoded(np.asarray([start, *ids], dtype=np.int32)) for ids in documents])

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the stream holds."""
        digest = hashlib.sha256()
        for part in (self.tokens, self.documents, self.counted):
            digest.update(b"all" if part is None else part.numpy().tobytes())
        return digest.hexdigest()

    def windows(self, offsets: Tensor, length: int) -> "Windows":
        """The windows of `length` tokens that begin at offsets [B]."""
        index = offsets[:, None] + torch.arange(length)
        counted = None if self.counted is None else self.counted[index]
        return Windows(self.tokens[index].long(), self.documents[index].long(), counted)


@dataclass(frozen=True)
class Windows:
    """Stretches of the stream. tokens [B, T] int64; documents [B, T] int64, equal within a document.

    counted [B, T] bool: which tokens count in the loss when they are predicted; None: all.
    """

    tokens: Tensor
    documents: Tensor
    counted: Tensor | None = None

    def one_document_each(self) -> bool:
        return bool((self.documents[:, 0] == self.documents[:, -1]).all())

    def position_ids(self) -> Tensor:
        """Position of each token in the part of its document that the window shows, [B, T]: serving counts likewise."""
        index = torch.arange(self.tokens.shape[1]).expand_as(self.tokens)
        starts = torch.zeros_like(self.documents, dtype=torch.bool)
        starts[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        return index - torch.where(starts, index, 0).cummax(dim=1).values

    def whole_chains(self, steps: int, labelled: bool = False) -> Tensor:
        """Which anchors 0..T-steps-1 have all of the next `steps` tokens in their own document, bool [B, T - steps].

        Those tokens are what a chain reads, and where its teacher stands: what it predicts last, one token further, may
        lie beyond the document, since the target's distribution there is right all the same. `labelled`: that token
        must be in the document and the window too, as it is a label. With `counted` it must as well, and all that the
        chain predicts must count.
        """
        anchors = self.tokens.shape[1] - steps
        whole = self.documents[:, :anchors] == self.documents[:, steps:]
        if labelled or self.counted is not None:
            whole[:, :-1] &= self.documents[:, : anchors - 1] == self.documents[:, steps + 1 :]
            whole[:, -1] = False
        if self.counted is not None:
            before = torch.nn.functional.pad(self.counted.long().cumsum(1), (1, 0))  # counted tokens before each place
            whole[:, :-1] &= before[:, steps + 2 :] - before[:, 2:-steps] == steps
        return whole


def load_streams(
    tokenizer: Any,
    data: Sequence[str | Path],
    eval_data: Sequence[str | Path],
    reading: Reading = USUAL_READING,
    progress: Callable[[int, int], None] = lambda documents, tokens: None,
) -> tuple[TokenStream, TokenStream]:
    """(training, held-out) streams; without eval_data a fixed twentieth of the documents is held out.

    progress is told how many documents and tokens have been read so far.
    """
    documents = load_documents(tokenizer, data, reading, progress)
    if eval_data:
        return TokenStream.of(documents), TokenStream.of(load_documents(tokenizer, eval_data, reading))
    train, held_out = split(documents)
    return TokenStream.of(train), TokenStream.of(held_out)


def load_documents(
    tokenizer: Any,
    data: Sequence[str | Path],
    reading: Reading = USUAL_READING,
    progress: Callable[[int, int], None] = lambda documents, tokens: None,
) -> list[Encoded]:
    """Reads and encodes; what stays in memory is 4 bytes a token. SpecdecError: see read_documents and Encoder."""
    documents: list[Encoded] = []
    tokens = 0
    for encoded in Encoder(tokenizer, reading)(read_documents(data, reading.fields)):
        documents.append(encoded)
        tokens += len(encoded.ids)
        if len(documents) % 100 == 0:
            progress(len(documents), tokens)
    return documents


def split(documents: list[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """(training, held-out): by a hash of each document's tokens, so the same on every run whatever the order.

    Where no document falls on one of the sides, the last tenth of the tokens is held out instead.
    """
    sides: tuple[list[Encoded], list[Encoded]] = ([], [])
    for document in documents:
        digest = hashlib.sha256(document.ids.astype(np.int64).tobytes()).digest()
        sides[int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0].append(document)
    return sides if all(sides) else _cut(documents)


def _cut(documents: list[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """The documents up to nine tenths of their tokens, and the rest; one of them is cut in two."""
    total = sum(len(d.ids) for d in documents)
    left = total - max(1, total // 10)
    sides: tuple[list[Encoded], list[Encoded]] = ([], [])
    for ids, counted in documents:
        cut = min(left, len(ids))
        left -= cut
        for side, part in zip(sides, (slice(0, cut), slice(cut, None)), strict=True):
            if len(ids[part]):
                side.append(Encoded(ids[part], None if counted is None else counted[part]))
    return sides
