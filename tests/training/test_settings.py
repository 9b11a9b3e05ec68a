"""Settings of a run and of its resumption."""

from dataclasses import replace
from pathlib import Path

import pytest

from specdec.errors import SpecdecError
from specdec.training.settings import Settings


def test_a_run_from_before_a_setting_had_its_default(tmp_path: Path):
    settings = Settings(model=Path("model"), data=[Path("data")], output=tmp_path)
    saved = settings.as_dict()
    del saved["loss_on"]
    settings.check_same_run(saved)
    with pytest.raises(SpecdecError, match="started with --loss-on all, not assistant"):
        replace(settings, loss_on="assistant").check_same_run(saved)
