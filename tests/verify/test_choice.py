"""Which backend serves: the one that was named, or the fastest that can, never a slower one in silence."""

import importlib.util
import warnings
from collections.abc import Iterator

import pytest
import torch

from specdec.errors import SpecdecError
from specdec.verify import backends as usable
from specdec.verify import cpu, reference
from specdec.verify.backends import BACKENDS, _by_device, choose, fastest_first, problem_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def chosen_anew() -> Iterator[None]:
    _by_device.clear()
    yield
    _by_device.clear()


def test_auto_takes_the_fastest_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", CPU) is cpu


@pytest.mark.parametrize(
    ("capability", "first"), [((8, 0), "cuda"), ((8, 9), "triton"), ((9, 0), "cuda"), ((10, 3), "triton")]
)
def test_float64_decides_between_gpu_backends(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], first: str):
    """8.9 and 10.3 have few units for float64, in which cuda computes."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    names = fastest_first(torch.device("cuda", 1))
    assert names[0] == first and set(names) == {"cuda", "triton", "reference"} and names[-1] == "reference"


def test_auto_says_what_it_passes_over_and_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "problem", lambda: "it is too hot")
    with pytest.warns(UserWarning, match=r"'cpu' cannot be used: it is too hot\. .* by 'reference', which is slower"):
        assert choose("auto", CPU) is reference
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        assert choose("auto", CPU) is reference


def test_a_backend_whose_module_is_missing(monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "specdec._C" else found(name))
    assert "cpu" not in usable() and problem_of("cpu") is not None
    monkeypatch.setattr(BACKENDS, "_created", {})
    with pytest.raises(SpecdecError, match=r"'cpu' cannot be used: specdec\._C is not built; install specdec"):
        choose("cpu", CPU)


def test_names():
    assert set(usable()) >= {"cpu", "reference"}
    with pytest.raises(SpecdecError, match="Unknown verify backend 'gpu': use one of cuda, triton, cpu, reference"):
        choose("gpu", CPU)
    with pytest.raises(SpecdecError, match="'cpu' does not take tensors on meta"):
        choose("cpu", torch.device("meta"))
