"""`specdec dashboard`: two files, what to do with them, and folders that cannot be written."""

import json

import pytest


def test_it_writes_both_files_and_says_where_they_go(run, tmp_path):
    status, out, _ = run("dashboard", "--output", tmp_path / "new" / "folder", "--window", "2m", "--past", "6h")
    assert status == 0
    board, rules = (tmp_path / "new" / "folder" / name for name in ("specdec-dashboard.json", "specdec-rules.yml"))
    assert str(board) in out and str(rules) in out and "Import" in out and "rule_files" in out
    assert json.loads(board.read_text())["uid"] == "specdec"
    assert "[2m]" in rules.read_text() and "[6h]" in rules.read_text() and "[5m]" not in rules.read_text()


def test_an_older_file_is_replaced(run, tmp_path):
    (tmp_path / "specdec-rules.yml").write_text("groups: []")
    assert run("dashboard", "--output", tmp_path)[0] == 0
    assert "SpecdecLostDraftRows" in (tmp_path / "specdec-rules.yml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"specdec-dashboard.json", "specdec-rules.yml"}


def test_a_folder_that_is_a_file_is_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, out, err = run("dashboard", "--output", tmp_path / "file")
    assert status == 2 and out == "" and "Cannot write to the folder" in err and "--output" in err


@pytest.mark.parametrize("option", ["--window", "--past"])
def test_a_bad_duration_writes_nothing(run, tmp_path, option):
    status, _, err = run("dashboard", "--output", tmp_path / "new", option, "5 minutes")
    assert status == 2 and f"{option} '5 minutes' is no duration" in err and not (tmp_path / "new").exists()
