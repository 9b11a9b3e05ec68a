"""Settings under additional_config["specdec"]: what is unknown or wrong is named, with what would be right."""

import pytest

from specdec.config import parse_settings
from specdec.errors import SpecdecError


def test_defaults() -> None:
    for nothing in (None, {}, {"other": 1}, {"specdec": {}}):
        settings = parse_settings(nothing)
        assert (settings.verify.method, settings.verify.backend, settings.metrics.enabled) == ("token", "auto", True)


@pytest.mark.parametrize("method", ["token", "block"])
def test_verify_methods(method: str) -> None:
    assert parse_settings({"specdec": {"verify": {"method": method}}}).verify.method == method


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"verfy": {}}, "unknown setting 'specdec.verfy'; known there: verify, drafts, metrics"),
        ({"verify": {"metod": "token"}}, "unknown setting 'specdec.verify.metod'; known there: method, backend"),
        (
            {"verify": {"method": "fast"}},
            "setting 'specdec.verify.method' is 'fast': Input should be 'token' or 'block'",
        ),
        ({"drafts": {"kept_mib": 0}}, "setting 'specdec.drafts.kept_mib' is 0: Input should be greater than 0"),
        ({"metrics": {"enabled": "often"}}, "setting 'specdec.metrics.enabled' is 'often'"),
        ([1], "must be an object of settings, not [1]"),
    ],
)
def test_faults_are_named(given: object, sentence: str) -> None:
    with pytest.raises(SpecdecError) as error:
        parse_settings({"specdec": given})
    assert sentence in str(error.value)
