"""`specdec conformance`: what it prints, what it writes, how it ends."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from specdec.cli import main
from specdec.conformance.expected import known
from specdec.conformance.processes import Absent, run_implementation
from specdec.conformance.run import Result
from specdec.conformance.table import Judged, render

SAMPLES = "tests.conformance.samples"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["conformance", *arguments])
    return int(ended.value.code or 0)


def printed(judged: list[Judged], absent: dict[str, str]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(judged, absent))
    return console.export_text()


def test_a_pass_a_failure_and_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    file = tmp_path / "new" / "results.json"
    status = run(
        "--implementation", "cpu", "--implementation", f"{SAMPLES}:Wrong", "--check", "min-p", "--check", "unchanged",
        "--json", str(file),
    )  # fmt: skip
    assert status == 1
    content = json.loads(file.read_text())
    verdicts = {(r["implementation"], r["check"]): r["verdict"] for r in content["results"]}
    assert verdicts == {
        ("cpu", "min-p"): "passed", ("cpu", "unchanged"): "passed",
        (f"{SAMPLES}:Wrong", "min-p"): "failed", (f"{SAMPLES}:Wrong", "unchanged"): "passed",
    }  # fmt: skip
    assert "versions" in content["provenance"]
    out = capfd.readouterr().out
    assert "are outcomes of probability 0" in out and "3 passed, 1 failed" in out


def test_all_passed_is_status_0():
    assert run("--implementation", "cpu", "--check", "unchanged") == 0


def test_list(capfd: pytest.CaptureFixture[str]):
    assert run("--list") == 0
    out = capfd.readouterr().out
    assert "vllm-v2" in out and "bug  5  A uniform number of exactly 0 accepts no token of probability 0." in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--check", "luck"), "Unknown check 'luck': use one of one-stream"),
        (("--implementation", "vllm-v9"), "Unknown implementation 'vllm-v9': use one of "),
        (("--implementation", "no.such:thing", "--check", "min-p"), "cannot test no.such:thing"),
        (("--implementation", f"{SAMPLES}:NOT_AN_IMPLEMENTATION", "--check", "min-p"), "makes a dict: it must make"),
    ],
)
def test_what_it_refuses(arguments: tuple[str, ...], sentence: str, capfd: pytest.CaptureFixture[str]):
    assert run(*arguments) == 2
    assert sentence in capfd.readouterr().err


def test_a_check_that_never_ends_and_one_that_kills_its_process():
    """The worker is started again for the checks that are left."""
    slow = run_implementation(f"{SAMPLES}:Sleeps", ["unchanged", "min-p", "layouts"], timeout=5.0)
    assert [r.state for r in slow] == ["passed", "failed", "passed"]
    assert slow[1].detail == "no result after 5 s"
    dead = run_implementation(f"{SAMPLES}:Dies", ["min-p", "unchanged"], timeout=60.0)
    assert [r.state for r in dead] == ["failed", "passed"]
    assert "the process ended with status" in dead[0].detail


def test_an_implementation_that_cannot_be_loaded():
    with pytest.raises(Absent, match=r"Cannot load the implementation 'no\.such:thing'"):
        run_implementation("no.such:thing", ["min-p"], timeout=60.0)


def test_what_is_lacking_does_not_apply():
    results = run_implementation(f"{SAMPLES}:TokenRuleOnly", ["tails", "seeds", "block-one-hot"], timeout=120.0)
    assert [r.state for r in results] == ["not applicable", "not applicable", "passed"]
    assert results[1].detail == "no draws drafts: none to draw"


def test_the_table_and_its_legend():
    judged = [
        Judged(Result("mine", "min-p", "failed", "chi-square 99"), None),
        Judged(Result("mine", "seeds", "failed", "one seed gives 3"), "drafts are drawn without it"),
        Judged(Result("mine", "ties", "passed", "all"), "cut at random"),
        Judged(Result("mine", "tails", "not applicable", "no many draws: slow"), None),
    ]
    text = printed(judged, {"sglang": "sglang is not installed here"})
    assert [one.verdict for one in judged] == ["failed", "known", "fixed?", "–"]
    for line in (
        "mine, min-p: chi-square 99",
        "mine, seeds: drafts are drawn without it. Seen: one seed gives 3",
        "mine, ties: cut at random. Seen: all",
        "mine (tails): no many draws: slow",
        "sglang: sglang is not installed here",
    ):
        assert line in text


def test_known_failures_hold_for_the_versions_they_were_seen_in():
    assert known("sglang", "min-p", "0.5.23") is not None
    assert known("sglang", "min-p", "0.6.0") is None
    assert known("vllm-v2", "bad-draft-rows", None) is not None
    assert known("cpu", "min-p", "0.1.0") is None
