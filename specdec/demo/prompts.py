"""Prompts cut from files that the model never saw, the same for every run and every call."""

import importlib.util
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError


@dataclass(frozen=True)
class Prompt:
    """A window of one held-out file: `source` is file:line, `token_ids` what is sent."""

    source: str
    token_ids: list[int]


def held_out_documents(corpus: Path) -> list[tuple[str, str]]:
    """(name, text) of each held-out file, by the rule that the model's own training script uses: `documents(held_out)`
    of the Python file `corpus`."""
    if not corpus.is_file():
        raise SpecdecError(
            f"{corpus} is not there: run the demo in a checkout of specdec, or name a corpus with --corpus FILE."
        )
    spec = importlib.util.spec_from_file_location("specdec_demo_corpus", corpus)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[tuple[str, str]] = module.documents(held_out=True)
    if not found:
        raise SpecdecError(
            f"{corpus} finds no held-out files: is the source of Python's standard library installed here?"
        )
    return found


def cut_prompts(
    documents: list[tuple[str, str]], model: Path, count: int, shortest: int = 64, longest: int = 128
) -> list[Prompt]:
    """`count` prompts of `shortest` to `longest` tokens, in turn from a file's beginning and from some line inside it.

    Prompts from a beginning carry the model's end-of-text token in front, as each training document did. Deterministic.
    """
    from tokenizers import Tokenizer

    path = model / "tokenizer.json"
    if not path.is_file():
        raise SpecdecError(f"{path} is not there: the demo needs a model with a tokenizer.json.")
    tokenizer = Tokenizer.from_file(str(path))
    rng = random.Random(0)
    long_enough = sorted(d for d in documents if len(d[1]) > 40 * longest)
    if not long_enough:
        raise SpecdecError(
            f"None of {len(documents)} held-out files is longer than {40 * longest} characters: name another corpus."
        )
    chosen = [long_enough[i % len(long_enough)] for i in range(count)]
    return [
        _cut(tokenizer, *document, rng.randint(shortest, longest), rng, beginning=i % 2 == 0)
        for i, document in enumerate(chosen)
    ]


def _cut(tokenizer: Any, name: str, text: str, length: int, rng: random.Random, beginning: bool) -> Prompt:
    lines = text.splitlines(keepends=True)
    first = 0 if beginning else rng.randrange(1, max(2, len(lines) // 2))
    window = "".join(lines[first:])[: 40 * length]  # no token is longer than that, so the window always suffices
    ids = tokenizer.encode(window, add_special_tokens=False).ids
    start = tokenizer.token_to_id("<|endoftext|>") if beginning else None
    return Prompt(f"{name}:{first + 1}", ([start] if start is not None else []) + ids[:length])
