"""Prompts for self-distillation: stretches of documents, which the target then goes on from."""

from collections.abc import Sequence

import numpy as np

from specdec.errors import SpecdecError


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
