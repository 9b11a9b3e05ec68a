"""Prompts that the target goes on from: chats up to their last answer, or stretches of documents."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specdec.errors import SpecdecError
from specdec.training.encode import Encoder
from specdec.training.formats import Chat, Document


class Prompts(NamedTuple):
    """ids: of each prompt, its start token included. end: the token that ends a chat's answer; None: cut from text."""

    ids: list[list[int]]
    end: int | None


def make_prompts(
    documents: Sequence[Document],
    encoder: Encoder,
    count: int,
    length: int,
    output_tokens: int,
    seed: int,
    longest: float = math.inf,
) -> Prompts:
    """`count` prompts: chats in shuffled rounds, or stretches of `length` tokens from other documents.

    longest: tokens of prompt and answer together; longer chats are left out. The same for the same documents and
    numbers, and the first n of more are the same n. SpecdecError: chats beside other documents, no chat that leaves
    room for its answer, no document long enough.
    """
    chats = [d for d in documents if isinstance(d.content, Chat)]
    if not chats:
        starts = encoder.start  # every prompt gets one of its own
        texts = [ids[int(ids[0] == starts) :].tolist() for ids, _ in encoder(documents)]
        return Prompts(cut_prompts(texts, count, length, seed, starts), None)
    if len(chats) < len(documents):
        raise SpecdecError("--data mixes chats with other documents: give each to a run of its own")
    ids = [prompt for prompt in map(encoder.prompt, chats) if len(prompt) < longest - output_tokens]
    if not ids:
        raise SpecdecError(
            f"none of the {len(chats)} chats leaves room for {output_tokens} tokens of answer: give shorter ones, or "
            "lower --output-tokens"
        )
    return Prompts([ids[i] for i in shuffled_rounds(len(ids), count, seed)], encoder.tokenizer.eos_token_id)


def cut_prompts(documents: Sequence[Sequence[int]], count: int, length: int, seed: int, start: int) -> list[list[int]]:
    """`count` prompts of `length` tokens, the start token and then a stretch of one document from anywhere in it.

    Longer documents are drawn in proportion to their length. The same for the same documents, count, length and seed,
    and the first n of more are the same n. Raises SpecdecError where no document is long enough.
    """
    usable = [d for d in documents if len(d) >= length - 1]
    if not usable:
        raise SpecdecError(
            f"none of the {len(documents)} documents has {length - 1} tokens: give longer text, or lower "
            "--prompt-tokens"
        )
    places = np.cumsum([len(d) - length + 2 for d in usable])
    drawn = np.random.default_rng(seed).random(count)
    prompts = []
    for place in (drawn * places[-1]).astype(np.int64):
        number = int(np.searchsorted(places, place, side="right"))
        first = int(place - (places[number - 1] if number else 0))
        prompts.append([start, *usable[number][first : first + length - 1]])
    return prompts


def shuffled_rounds(size: int, count: int, seed: int) -> list[int]:
    """`count` of the numbers 0..size-1: all of them in a shuffled order, then again in another, and so on.

    The same for the same size and seed, and the first n of more are the same n.
    """
    rounds = -(-count // size)
    return [int(i) for r in range(rounds) for i in np.random.default_rng((seed, r)).permutation(size)][:count]
