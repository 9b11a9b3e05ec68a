"""The rules, as Prometheus' own tool reads them: valid, silent on healthy figures, firing on each fault.

The figures are in rules_test.yml.
"""

import shutil
from pathlib import Path

import pytest

from specdec.errors import SpecdecError
from specdec.metrics.dashboard import write_files
from specdec.metrics.dashboard.write import rules
from tests.helpers.prometheus import promtool

CASES = Path(__file__).with_name("rules_test.yml")


@pytest.mark.parametrize(("window", "past"), [("5m", "1d"), ("30s", "2h"), ("1h", "1w")])
def test_prometheus_takes_the_rules(tmp_path: Path, window: str, past: str) -> None:
    _, path = write_files(tmp_path, window, past)
    done = promtool().run("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = path.read_text()
    assert "<window>" not in text and "<past>" not in text
    assert f"[{window}]" in text and f"[{past}] offset {window}" in text


def test_each_fault_fires_its_alert_and_no_other(tmp_path: Path) -> None:
    write_files(tmp_path, "5m", "1d")
    shutil.copy(CASES, tmp_path)
    done = promtool().run("test", "rules", CASES.name, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("bound", "too_far"),
    [
        ("mean < 1.2", "mean < 1"),
        ("< 0.7 *", "< 0.3 *"),
        ("> 0.02 + 2.5", "> 0.2 + 2.5"),
        ("> 0.1 + 2.5", "> 0.5 + 2.5"),
        ("> 2 *", "> 4 *"),
        ("> 0.01", "> 0.03"),
    ],
)
def test_the_cases_notice_an_alert_that_does_not_fire(tmp_path: Path, bound: str, too_far: str) -> None:
    _, path = write_files(tmp_path, "5m", "1d")
    assert path.read_text().count(bound) == 1
    path.write_text(path.read_text().replace(bound, too_far))
    assert promtool().run("check", "rules", path).returncode == 0
    shutil.copy(CASES, tmp_path)
    assert promtool().run("test", "rules", CASES.name, cwd=tmp_path).returncode != 0


@pytest.mark.parametrize("duration", ["5", "five minutes", "0m", "-5m", "1.5h", "5m; drop", ""])
def test_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(SpecdecError, match="is no duration"):
        rules(duration, "1d")
    with pytest.raises(SpecdecError, match="--past"):
        rules("5m", duration)
