"""`specdec eval` without an engine: what it writes and shows, and the sentence for each wrong option."""

import json
import re

import pytest
import torch

from specdec.evaluation.acceptance import Acceptance
from specdec.evaluation.filters import Filters
from specdec.evaluation.measure import measure
from specdec.heads import HeadConfig, MTPHead, load_head, save_head
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, load_documents
from specdec.training.target import Target
from tests.helpers.evaluated import make_evaluated
from tests.helpers.tiny_models import make_config

KINDS = ("prose", "code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = make_evaluated(tmp_path_factory.mktemp("eval"))
    records = [
        {"text": (path / "text" / f"{i:03}.txt").read_text(), "kind": KINDS[i % 2]} for i in range(6)
    ]  # fmt: skip
    (path / "text.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.fixture
def evaluate(folder, run):
    """evaluate(option, ...) -> (exit status, stdout, stderr)."""

    def call(*options, data="text.jsonl"):
        usual = ["--model", folder / "model", "--data", folder / data, "--seq-len", 32, "--dtype", "float32"]
        return run("eval", *usual, *options)

    return call


def test_heads_and_settings_in_one_call(folder, evaluate, tmp_path):
    """Everything at once; each figure along the text as measure.py finds it for that head and setting alone."""
    status, out, err = evaluate(
        "--head", folder / "near", "--head", folder / "far", "--temperature", 1, "--temperature", 0,
        "--setting", "T=0.6,top_p=0.9", "--prompts", 6, "--prompt-tokens", 8, "--output-tokens", 12,
        "--by", "kind", "--output", tmp_path / "new" / "report", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert status == 0, err
    files = {path.name for path in (tmp_path / "new" / "report").iterdir()}
    assert files == {"results.json", "report.html", "positions.png", "lengths.png", "entropy.png"}
    report = json.loads((tmp_path / "out.json").read_text())
    assert report == json.loads((tmp_path / "new" / "report" / "results.json").read_text())
    rows = report["results"]
    names = ["T=1", "T=0", "T=0.6,top_p=0.9"]
    assert [(row["head"], row["setting"]) for row in rows] == [
        (str(folder / head), name) for head in ("near", "far") for name in names
    ]
    target = Target(folder / "model", torch.float32)
    windows = held_out_windows(TokenStream.of(load_documents(target.tokenizer, [folder / "text.jsonl"])), 16, 32, 64)
    settings = [Filters(1), Filters(0), Filters(0.6, top_p=0.9)]
    heads = [load_head(folder / name) for name in ("near", "far")]
    figures = measure(heads, target, windows, 3, settings, autocast=False)
    expected = [Acceptance.of(f, s) for of_head in figures for f, s in zip(of_head, settings, strict=True)]
    for row, wanted in zip(rows, expected, strict=True):
        assert row["alpha"] == pytest.approx(wanted.alpha, abs=1e-5)
        assert row["length"] == pytest.approx(wanted.length, abs=1e-5)
        assert set(row["by_source"]) == set(KINDS)
        assert sum(part["anchors"] for part in row["by_source"].values()) == row["anchors"] == wanted.anchors
        assert 1 <= row["predicted"]["length"] <= 4 and row["predicted"]["steps"] > 6
        assert len(row["entropy"]) == 8
    for row in rows[1::3]:  # at temperature 0 both ways are one
        assert row["length"] == pytest.approx(row["greedy_length"])
        assert row["predicted"]["length"] == pytest.approx(row["predicted_greedy"]["length"])
    assert len(report["slope_differences"]) == 3 * 8
    for text in ("held-out acceptance", "acceptance length in serving", "against entropy", "by source", "prose"):
        assert text in out
    assert f"{rows[0]['length']:.4f}" in out and f"{rows[5]['predicted']['length']:.3f}" in out


def test_the_page_needs_nothing_else(folder, evaluate, tmp_path):
    head = folder / "near"
    assert evaluate("--head", head, "--prompts", 0, "--output", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3 and "T=1" in page and str(head) in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page) and "@import" not in page and "url(http" not in page
    assert "acceptance length in serving" not in page.lower()  # nothing was predicted
    for name in ("positions", "lengths", "entropy"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_groups_are_files_unless_a_field_says_otherwise(folder, evaluate, tmp_path):
    options = ("--head", folder / "near", "--prompts", 0, "--json", tmp_path / "x.json")
    assert evaluate(*options, data="text")[0] == 0
    [row] = json.loads((tmp_path / "x.json").read_text())["results"]
    assert set(row["by_source"]) == {str(folder / "text" / f"{i:03}.txt") for i in range(6)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--temperature", -1], "--temperature cannot be -1"),
        (["--temperature", 1, "--top-p", 0], "--top-p cannot be 0"),
        (["--top-k", -1], "--top-k cannot be -1"),
        (["--min-p", 2], "--min-p cannot be 2"),
        (["--setting", "T=2", "--top-k", 5], "go with --temperature"),
        (["--setting", "T=x"], "--setting 'T=x': 'x' is no number for T"),
        (["--num-steps-ahead", 0], "--num-steps-ahead cannot be 0"),
        (["--seq-len", 4], "--seq-len cannot be 4"),
        (["--seq-len", 200], "--seq-len makes 200 tokens, but the target knows at most 128 positions"),
        (["--output-tokens", 120], "--output-tokens and drafts make 156 tokens"),
        (["--windows", 0], "--windows cannot be 0"),
        (["--prompts", -1], "--prompts cannot be -1"),
        (["--output-tokens", 4], "--output-tokens cannot be 4: give 5 or more"),
        (["--draft-temperature", "auto"], "--draft-temperature cannot be auto: use calibrated or same"),
        (["--loss-on", "user"], "--loss-on cannot be user"),
        (["--data", "/nowhere"], "there is no data at /nowhere"),
        (["--head", "/nowhere"], "there is no head at /nowhere"),
        (["--by", "domain"], "has no field 'domain'"),
        (["--json", "/proc/none/x.json"], "cannot write /proc/none/x.json"),
        (["--output", "/proc/none"], "cannot write /proc/none"),
    ],
)
def test_what_is_wrong_is_named(folder, evaluate, options, text):
    status, _, err = evaluate("--head", folder / "near", *options)
    assert status == 2 and text in err.splitlines()[-1], err
    assert err.splitlines()[-1].startswith("specdec: ")


def test_an_engine_needs_prompts_and_a_head_that_it_can_serve(folder, evaluate, tmp_path):
    status, _, err = evaluate("--head", folder / "near", "--engine", "--prompts", 0)
    assert status == 2 and "--prompts cannot be 0: give 1 or more" in err
    save_head(MTPHead(HeadConfig.for_target(make_config(hidden_size=48))), tmp_path)
    for more in ((), ("--engine",)):
        status, _, err = evaluate("--head", folder / "near", "--head", tmp_path, *more)
        assert status == 2 and "48" in err and "32" in err
