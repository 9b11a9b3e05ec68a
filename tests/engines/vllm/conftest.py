import sys
from pathlib import Path

import pytest

from tests.engines.vllm.engine import HEAD, MODEL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Token ids of 64 prompts of 28 tokens cut from held-out files."""
    pytest.importorskip("vllm")
    assert MODEL.is_dir() and HEAD.is_dir(), "the shipped model and head are missing from examples/tiny-lm"
    from transformers import AutoTokenizer

    sys.path.insert(0, str(MODEL.parent))
    import corpus

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    found: list[list[int]] = []
    for _, text in corpus.documents(held_out=True):
        ids = tokenizer(text[400:1200])["input_ids"][:28]
        if len(ids) == 28:
            found.append(ids)
    assert len(found) >= 64, "the standard library's held-out side is too small"
    return found[:64]
