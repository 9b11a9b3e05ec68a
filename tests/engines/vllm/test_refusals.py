"""What stops an engine's start: one sentence naming the value and the remedy, before anything is served."""

import json
import shutil
from pathlib import Path

import pytest

from tests.engines.vllm.engine import HEAD, fail_child, ours, speculative


def with_head(head: Path) -> dict:
    return {**ours(3), **speculative(3, head=head)}


def changed_head(folder: Path, **changes: object) -> Path:
    shutil.copytree(HEAD, folder / "head")
    path = folder / "head" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder / "head"


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size"])
def test_a_head_of_another_shape(field: str, tmp_path: Path) -> None:
    said = fail_child(with_head(changed_head(tmp_path, **{field: 768})))
    assert f"{field} 768" in said and "use a head that was trained for this model" in said


def test_a_truncated_head(tmp_path: Path) -> None:
    head = changed_head(tmp_path)
    weights = head / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "truncated" in fail_child(with_head(head))


def test_an_unknown_setting() -> None:
    said = fail_child(ours(3, settings={"verfy": {"method": "token"}}))
    assert "unknown setting 'specdec.verfy'; known there: verify, drafts, metrics, steering" in said


def test_no_room_for_one_request() -> None:
    said = fail_child(ours(3, settings={"drafts": {"kept_mib": 0.001}}))
    assert "drafts.kept_mib 0.001 does not hold one request's draft rows, which take 0.01 MiB: raise it" in said


def test_an_unsupported_vllm() -> None:
    """The installed version, held against a supported range that ends before it."""
    said = fail_child(ours(3), fault="unsupported_vllm")
    assert "is not supported: specdec works with vLLM 0.26 to 0.31" in said
