"""The command line itself: its help, its speed, and how errors end."""

import subprocess
import sys

import pytest

from specdec.cli import COMMANDS


def test_help_lists_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in COMMANDS)


def test_help_does_not_wait_for_torch():
    """`specdec --help` loads neither PyTorch nor an engine: the commands are imported when they are called."""
    program = "import sys\nfrom specdec.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" + (
        "print(sorted({'torch', 'vllm', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0
    assert f"specdec {name}" in out


def test_an_unknown_command_is_named(run):
    status, _, err = run("srve")
    assert status == 2 and "srve" in err


def test_an_error_is_one_sentence_without_a_traceback(run):
    status, out, err = run("serve", "/nowhere/model", "--head", "/nowhere/head")
    assert status == 2 and out == ""
    assert err.startswith("specdec: ") and err.count("\n") == 1 and "/nowhere/model" in err


def test_bench_without_a_checkout_says_so(run, tmp_path):
    status, _, err = run("bench", "--folder", tmp_path)
    assert status == 2 and "no benchmarks" in err


def test_bench_runs_scripts_and_reports_a_failure(run, tmp_path):
    (tmp_path / "good.py").write_text('"""Is it fine?"""\nimport sys\nassert sys.argv[1:] == ["--fast"]')
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    assert "good         Is it fine?" in run("bench", "--folder", tmp_path)[1]
    assert run("bench", "good", "--folder", tmp_path, "--", "--fast")[0] == 0
    status, _, err = run("bench", "bad", "--folder", tmp_path)
    assert status == 2 and "status 3" in err
    status, _, err = run("bench", "worse", "--folder", tmp_path)
    assert status == 2 and "'worse'" in err and "good" in err
