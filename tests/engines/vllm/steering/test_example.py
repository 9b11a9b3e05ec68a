"""examples/steer.py does what the README says of it: a feature added shows in the text, and in its own reading."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines.vllm.forks import ROOT

SAMPLES, TOKENS = 24, 48


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """At -300, 0 and 300, as the script writes it."""
    folder = tmp_path_factory.mktemp("steer")
    arguments = ["--samples", str(SAMPLES), "--tokens", str(TOKENS), "--strengths", "-300", "0", "300"]
    output = ["--json", str(folder / "found.json"), "--plot", str(folder / "plot.png")]
    done = subprocess.run(
        [sys.executable, "examples/steer.py", *arguments, *output], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert Path(folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "found.json").read_text())


def rise(lower: dict[str, Any], higher: dict[str, Any], what: str) -> float:
    """In standard errors of the difference of two means over texts, which are independent samples."""
    (one, its), (other, error) = lower[what], higher[what]
    return (other - one) / (((its / 1.96) ** 2 + (error / 1.96) ** 2) ** 0.5)


def test_effect_and_reading_rise_with_strength(found: list[dict[str, Any]]) -> None:
    """By more than five standard errors, of which chance makes less than one in a million."""
    down, plain, up = found
    assert [one["strength"] for one in found] == [-300, 0, 300]
    assert all(len(one["texts"]) == SAMPLES for one in found)
    for what in ("count", "reading"):
        assert rise(plain, up, what) > 5 and rise(down, up, what) > 5
    # Some of these 1,152 tokens are capitals where nobody steers; under -300 the feature is not left active.
    assert down["reading"][0] < 0.1 * plain["reading"][0]


def test_drafts_are_accepted_at_every_strength(found: list[dict[str, Any]]) -> None:
    assert all(1.2 < one["acceptance_length"][0] <= 4 for one in found)
