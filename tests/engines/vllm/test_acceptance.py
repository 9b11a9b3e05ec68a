"""`specdec eval --engine`: the acceptance length predicted without an engine, against the one that vLLM shows."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from specdec.engines.vllm import acceptance
from specdec.errors import SpecdecError
from specdec.evaluation.filters import Filters
from specdec.evaluation.measure import measure
from specdec.evaluation.measured import Measured
from specdec.evaluation.served import continuation_windows, predict
from specdec.heads import load_head
from specdec.training.target import Target
from tests.engines.vllm.engine import HEAD, MODEL

SETTING = Filters(0.8, top_p=0.95)
PROMPTS, PROMPT, OUTPUT, DRAFTS = 64, 16, 48, 3


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[acceptance.Part]]:
    """What the command writes, and what its one engine reported."""
    from specdec.cli import main

    folder = tmp_path_factory.mktemp("eval")
    (folder / "text.py").write_text(Path(json.__file__).read_text())
    seen: list[list[acceptance.Part]] = []
    real = acceptance.run_load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceptance, "run_load", lambda *args: seen.extend(real(*args)) or seen)
        sizes = ["--prompts", PROMPTS, "--prompt-tokens", PROMPT, "--output-tokens", OUTPUT, "--windows", 2]
        arguments = [
            "eval", "--model", MODEL, "--head", HEAD, "--data", folder / "text.py", "--dtype", "float32",
            "--setting", SETTING, "--engine", "--output", folder / "out", *sizes,
        ]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
    assert not end.value.code
    return json.loads((folder / "out" / "results.json").read_text()), seen[0]


def test_predicted_and_measured(report: tuple[dict, list[acceptance.Part]]) -> None:
    """On texts of their own each, so both are uncertain: five standard errors of the difference."""
    [row] = report[0]["results"]
    predicted, measured = row["predicted"], row["measured"]
    assert measured["steps"] > 1000
    doubt = math.hypot(predicted["error"], measured["error"]) / 1.96
    assert abs(measured["length"] - predicted["length"]) < 5 * doubt < 0.4
    assert measured["observed"] == pytest.approx(measured["expected"], abs=0.06)


def test_predicted_from_the_texts_that_the_engine_wrote(report: tuple[dict, list[acceptance.Part]]) -> None:
    """On the same texts only the drafts' own chance is left."""
    parts = report[1]
    prompts = report_prompts(report[0])
    target = Target(MODEL, torch.float32)
    outputs = [output for part in parts for output in part.outputs]
    assert len(outputs) == PROMPTS == len(prompts) and max(map(len, outputs)) == OUTPUT
    windows = continuation_windows(prompts, outputs, 32)
    [[figures]] = measure([load_head(HEAD)], target, windows, DRAFTS, [SETTING], autocast=False)
    found = predict(figures, torch.full((PROMPTS,), PROMPT - 1))
    measured = Measured.of([part.counts for part in parts], DRAFTS)
    assert found.length == pytest.approx(measured.length, rel=0.04)


def report_prompts(report: dict) -> list[list[int]]:
    """The prompts that the command cuts from its data, by its own rule."""
    from transformers import AutoTokenizer

    from specdec.training.encode import Encoder
    from specdec.training.formats import read_documents
    from specdec.training.prompts import make_prompts

    encoder = Encoder(AutoTokenizer.from_pretrained(MODEL))
    documents = list(read_documents(report["data"]))
    return make_prompts(documents, encoder, PROMPTS, PROMPT, OUTPUT, seed=0).ids


def test_an_engine_that_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is in the sentence, and nothing waits for it."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho starting\necho 'OutOfMemoryError: 3 GiB' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    load = acceptance.Load([[0, 5, 6]], 8, [Filters().as_dict()], DRAFTS)
    with pytest.raises(SpecdecError, match=r"ended after 0 of 1 requests\. Its log is .*engine\.log.*Memory.*3 GiB"):
        acceptance.run_load(MODEL, HEAD, load, tmp_path / "engine.log")
