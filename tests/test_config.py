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
        ({"verfy": {}}, "unknown setting 'specdec.verfy'; known there: verify, drafts, metrics, steering"),
        ({"verify": {"metod": "token"}}, "unknown setting 'specdec.verify.metod'; known there: method, backend"),
        (
            {"verify": {"method": "fast"}},
            "setting 'specdec.verify.method' is 'fast': Input should be 'token' or 'block'",
        ),
        ({"drafts": {"kept_mib": 0}}, "setting 'specdec.drafts.kept_mib' is 0: Input should be greater than 0"),
        (
            {"drafts": {"count": "most"}},
            "setting 'specdec.drafts.count' is 'most': Input should be 'fixed' or 'adaptive' or ",
        ),
        ({"drafts": {"count": -1}}, "setting 'specdec.drafts.count' is -1: Input should be 'fixed' or 'adaptive' or"),
        ({"metrics": {"max_tenants": -1}}, "setting 'specdec.metrics.max_tenants' is -1"),
        ({"metrics": {"enabled": "often"}}, "setting 'specdec.metrics.enabled' is 'often'"),
        (
            {"steering": {"saes": {"a": {"path": "x", "layr": 3}}}},
            "'specdec.steering.saes.a.layr'; known there: path, layer, k",
        ),
        ({"steering": {"saes": {"a": {"path": "x", "k": 0}}}}, "setting 'specdec.steering.saes.a.k' is 0"),
        ({"steering": {"vectors": {"a": {"path": "x", "k": 4}}}}, "unknown setting 'specdec.steering.vectors.a.k'"),
        ({"steering": {"saes": {"a": 3}}}, "setting 'specdec.steering.saes.a' is 3"),
        ({"steering": {"max_programs": 0}}, "setting 'specdec.steering.max_programs' is 0"),
        ([1], "must be an object of settings, not [1]"),
    ],
)
def test_faults_are_named(given: object, sentence: str) -> None:
    with pytest.raises(SpecdecError) as error:
        parse_settings({"specdec": given})
    assert sentence in str(error.value)


def test_a_file_may_be_a_path_alone() -> None:
    steering = parse_settings({"specdec": {"steering": {"saes": {"a": "x", "b": {"path": "y", "layer": 3}}}}}).steering
    assert [(file.path, file.layer) for file in steering.saes.values()] == [("x", None), ("y", 3)]
    assert steering.enabled and not parse_settings(None).steering.enabled
