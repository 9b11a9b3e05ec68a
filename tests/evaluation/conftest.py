"""One random target with two heads for all tests of evaluation."""

import pytest
import torch

from specdec.heads import load_head
from specdec.training.target import Target
from tests.helpers.evaluated import make_evaluated


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return make_evaluated(tmp_path_factory.mktemp("eval"))


@pytest.fixture(scope="session")
def target(folder):
    return Target(folder / "model", torch.float32)


@pytest.fixture(scope="session")
def near(folder):
    return load_head(folder / "near")
