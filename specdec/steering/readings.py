"""What was read of a response: activations token by token, and pooled over it and over its prompt.

Pooling is that of feature-level preference work (arXiv 2606.12360): a span's maximum of each feature, and its firing
frequency, the share of tokens at which the feature is active.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from specdec.steering.reading import Read


@dataclass(frozen=True, eq=False)
class Span:
    """Features pooled over `tokens` tokens: ids, maxima and frequencies, [n] each.

    Under "top", the features with the largest maxima, at most k, of those that were among the k of some token; a
    frequency counts the tokens at which the feature was among the k.
    """

    features: list[int]
    max: np.ndarray  # float32
    frequency: np.ndarray  # float32
    tokens: int

    @classmethod
    def of(cls, features: Iterable[int], most: np.ndarray, active: np.ndarray, tokens: int) -> "Span":
        """most, active [n]: maxima, and at how many tokens each is active."""
        share = active.astype(np.float32) / max(tokens, 1)
        return cls([int(f) for f in features], most.astype(np.float32), share, tokens)

    def as_json(self) -> dict[str, Any]:
        return {
            "features": self.features, "max": _numbers(self.max), "frequency": _numbers(self.frequency),
            "tokens": self.tokens,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Readings:
    """Of the tokens of one completion: all, or in a stream those that came new.

    activations: float32 [tokens, n], of read.features, or under "top" of `ids`, int32 [tokens, k], largest first.
    response: pooled over the response so far. prompt: over the prompt, where that was asked for.
    """

    read: Read
    activations: np.ndarray
    response: Span
    ids: np.ndarray | None = None
    prompt: Span | None = None

    @property
    def features(self) -> list[int]:
        """Those that `max` and `frequency` are of."""
        return self.response.features

    @property
    def max(self) -> np.ndarray:
        return self.response.max

    @property
    def frequency(self) -> np.ndarray:
        return self.response.frequency

    @property
    def top(self) -> list[list[tuple[int, float]]]:
        """Under "top": each token's active features among the k, with their activations."""
        if self.ids is None:
            raise ValueError('this reading is of chosen features: see "activations"')
        return [
            [(int(i), float(f)) for i, f in zip(*row, strict=True) if f > 0]
            for row in zip(self.ids, self.activations, strict=True)
        ]

    def joined(self, later: "Readings") -> "Readings":
        """With those of the tokens that follow."""
        ids = None if self.ids is None or later.ids is None else np.concatenate([self.ids, later.ids])
        return replace(later, activations=np.concatenate([self.activations, later.activations]), ids=ids)

    def as_json(self) -> dict[str, Any]:
        """What stands under a choice's "specdec" in a response."""
        if self.ids is None:
            tokens: dict[str, Any] = {"activations": [_numbers(row) for row in self.activations]}
        else:
            tokens = {"top": [[[i, *_numbers([f])] for i, f in token] for token in self.top]}
        found = {**self.response.as_json(), **tokens}
        return found if self.prompt is None else {**found, "prompt": self.prompt.as_json()}


def _numbers(values: Iterable[float]) -> list[float]:
    """Six digits: float32 has no more than seven."""
    return [float(f"{value:.6g}") for value in values]


class Collector:
    """Makes the readings of one response of what arrives step by step."""

    def __init__(self, read: Read) -> None:
        self._read = read
        width = read.width if read.top is None else 2 * read.width
        self._rows = [np.zeros((0, width), dtype=np.float32)]  # parts; ids, then values, under "top"
        self._first = 0  # the token of the first row: those before it have been given away
        self._pool = _ChosenPool(read) if read.top is None else _TopPool(read.top)
        self._prompt: Span | None = None

    def take(self, rows: bytes, prompt: bytes | None = None, prompt_tokens: int = 0) -> None:
        """float32 rows [tokens, n], or [tokens, 2 k]: ids, then values. prompt: [2, n], maxima and how many times
        active, or [3, k] with the ids first."""
        self._rows.append(np.frombuffer(rows, dtype=np.float32).reshape(-1, self._rows[0].shape[1]))
        if prompt is not None:
            table = np.frombuffer(prompt, dtype=np.float32).reshape(-1, self._read.width)
            features: Iterable[int] = self._read.features or ()
            if self._read.top is not None:
                there = table[-1] > 0
                features, table = table[0, there].astype(int), table[:, there]
            self._prompt = Span.of(features, table[-2], table[-1], prompt_tokens)

    def give(self, tokens: int, new: int | None) -> Readings:
        """Of a response of `tokens` tokens so far: of all, or of the last `new`, of which no other will be asked for.

        Rows behind `tokens` were of tokens that a stop string cut off.
        """
        kept, end = np.concatenate(self._rows), tokens - self._first
        if end > len(kept):
            raise RuntimeError(f"{tokens} tokens, but readings of {self._first + len(kept)}")
        self._pool.extend(kept[self._pool.tokens - self._first : end])
        rows = kept[:end] if new is None else kept[end - new : end]
        if new is not None:
            kept, self._first = kept[end:], tokens
        self._rows = [kept]
        if self._read.top is None:
            return Readings(self._read, rows, self._pool.span(), prompt=self._prompt)
        ids, values = np.split(rows, 2, axis=1)
        return Readings(self._read, values, self._pool.span(), ids.astype(np.int32), self._prompt)


class _ChosenPool:
    """Of the features that a request named."""

    def __init__(self, read: Read) -> None:
        self._features, self.tokens = read.features or (), 0
        self._max = np.zeros(read.width, dtype=np.float32)
        self._active = np.zeros(read.width)

    def extend(self, rows: np.ndarray) -> None:
        """rows [tokens, n] of the tokens that follow."""
        if len(rows):
            self._max = np.maximum(self._max, rows.max(axis=0))
            self._active += (rows > 0).sum(axis=0)
            self.tokens += len(rows)

    def span(self) -> Span:
        return Span.of(self._features, self._max, self._active, self.tokens)


class _TopPool:
    """Of the features that came among the k largest of some token. The k largest maxima are among theirs."""

    def __init__(self, k: int) -> None:
        self._k, self.tokens = k, 0
        self._max: dict[int, float] = {}
        self._active: dict[int, int] = {}

    def extend(self, rows: np.ndarray) -> None:
        """rows [tokens, 2 k] of the tokens that follow: ids, then values."""
        self.tokens += len(rows)
        for feature, value in np.stack(np.split(rows, 2, axis=1), -1).reshape(-1, 2).tolist():
            if value > 0:
                self._max[int(feature)] = max(value, self._max.get(int(feature), 0.0))
                self._active[int(feature)] = self._active.get(int(feature), 0) + 1

    def span(self) -> Span:
        features = sorted(self._max, key=lambda f: (-self._max[f], f))[: self._k]
        most, active = ([table[f] for f in features] for table in (self._max, self._active))
        return Span.of(features, np.array(most), np.array(active), self.tokens)
