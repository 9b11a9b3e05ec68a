"""A cache of hidden states: the same training from it, and each way to be unfinished, broken or foreign."""

import fcntl
import json
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from specdec.errors import SpecdecError
from specdec.training.batches import Batches
from specdec.training.data import TokenStream, load_streams
from specdec.training.hidden_cache import HiddenCache
from specdec.training.hidden_cache import cache as cache_module
from specdec.training.hidden_cache import shards as shards_module
from specdec.training.settings import Settings
from specdec.training.target import Target
from specdec.training.trainer import Trainer
from tests.helpers.tiny_models import make_target, write_text

LENGTH, ROWS = 16, 3
WINDOW_BYTES = LENGTH * 32 * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache")
    make_target(path / "model")
    make_target(path / "other", seed=1)
    write_text(path / "text", 10)
    return path


@pytest.fixture(scope="module")
def target(folder):
    return Target(folder / "model", torch.float32)


@pytest.fixture(scope="module")
def stream(folder, target):
    return load_streams(target.tokenizer, [folder / "text"], [folder / "text"])[0]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 20 * WINDOW_BYTES)


def make(path, folder, target, stream, length=LENGTH, overlap=4, model="model"):
    return HiddenCache(path, target, Batches(stream, ROWS, length, seed=0, overlap=overlap), folder / model)


def filled(cache):
    """Fills; returns the warnings."""
    warnings = []
    cache.fill(warnings.append, lambda done, total: None)
    return warnings


def made_by(monkeypatch):
    """Records which shards are made from now on."""
    made, plain = [], HiddenCache._make
    monkeypatch.setattr(HiddenCache, "_make", lambda self, shard: made.append(shard) or plain(self, shard))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder, target, stream):
    """A finished cache of several shards, to copy and damage."""
    path = tmp_path_factory.mktemp("whole") / "states"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "SHARD_BYTES", 20 * WINDOW_BYTES)
        assert filled(make(path, folder, target, stream)) == []
    assert len(list(path.glob("*.safetensors"))) > 3
    return path


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "states")


def test_states_are_the_targets_own(whole, folder, target, stream):
    """In the last epoch's order too. Runs of other rows differ by rounding alone: 1e-5 of values around 1."""
    cache = make(whole, folder, target, stream)
    assert f"= {cache.bytes / 1e9:.2f} GB in {whole}" in str(cache) and "x 32 x 4 bytes" in str(cache)
    for step in (0, 1, cache.batches.per_epoch):
        numbers = cache.batches.numbers(cache.batches.places(step))
        windows = cache.batches.windows(numbers)
        torch.testing.assert_close(cache.hidden(numbers, windows), target.hidden(windows), rtol=1e-5, atol=1e-5)
    assert not list(whole.glob(".hidden-*.tmp"))


def losses(folder, target, stream, output, cache=None, dtype="float32"):
    settings = Settings(
        folder / "model", [folder / "text"], output, steps=8, batch_tokens=8 * 32, seq_len=32, dtype=dtype,
        optimizer="adamw", eval_windows=4,
    )  # fmt: skip
    trainer = Trainer(settings, target, stream, stream)
    if cache is not None:
        cache = HiddenCache(cache, target, trainer.batches, folder / "model")
        filled(cache)
        trainer.hidden = cache.hidden
    return [trainer.step()[0] for _ in range(8)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_from_the_cache_takes_the_same_course(tmp_path, folder, stream, dtype):
    """float32: rounding of the target's products in batches of other windows. bfloat16: 3 significant digits."""
    target = Target(folder / "model", getattr(torch, dtype))
    plain = losses(folder, target, stream, tmp_path / "a", dtype=dtype)
    cached = losses(folder, target, stream, tmp_path / "b", tmp_path / "states", dtype)
    assert cached == pytest.approx(plain, abs=1e-5 if dtype == "float32" else 5e-3)
    assert plain[0] != plain[-1]


def test_a_finished_cache_is_used_as_it_is(copied, folder, target, stream, monkeypatch):
    made = made_by(monkeypatch)
    assert filled(make(copied, folder, target, stream)) == [] and made == []


def test_an_interrupted_filling_goes_on(tmp_path, folder, target, stream, monkeypatch):
    path = tmp_path / "states"
    plain = target.hidden
    calls = []

    def killed(windows):
        calls.append(windows)
        if len(calls) == 10:  # 7 calls a shard: in the second one
            raise KeyboardInterrupt
        return plain(windows)

    monkeypatch.setattr(target, "hidden", killed)
    with pytest.raises(KeyboardInterrupt):
        filled(make(path, folder, target, stream))
    assert [p.name for p in path.glob("*.safetensors")] == ["hidden-000000.safetensors"]
    (path / ".hidden-000001.safetensors.tmp").write_bytes(b"half")
    monkeypatch.setattr(target, "hidden", plain)
    made = made_by(monkeypatch)
    assert filled(make(path, folder, target, stream)) == []
    assert made[0] == 1 and 0 not in made and not list(path.glob(".hidden-*.tmp"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def foreign(path):
    """Another cache's shard of the same name and shape."""
    save_file({"hidden": load_file(path)["hidden"] + 1}, path, metadata={"first": "20"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "bytes instead of"),
        (flip, "its checksum differs"),
        (foreign, "from another cache"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_broken_shard_is_named_and_made_anew(copied, whole, folder, target, stream, monkeypatch, damage, words):
    name = "hidden-000001.safetensors"
    damage(copied / name)
    made = made_by(monkeypatch)
    (warning,) = filled(make(copied, folder, target, stream))
    assert name in warning and words in warning and "making it anew" in warning and made == [1]
    again = load_file(copied / name)["hidden"]
    torch.testing.assert_close(again, load_file(whole / name)["hidden"], rtol=1e-5, atol=1e-5)
    assert filled(make(copied, folder, target, stream)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other"}, "(the model's weights or configuration differ)"),
        ({"stream": TokenStream.pack([list(range(100))], 0)}, "the data or the tokenizer"),
        ({"length": 20}, "--seq-len"),
        ({"overlap": 6}, "--num-steps-ahead"),
        ({"target": "bfloat16"}, "(--dtype differ)"),
    ],
)
def test_the_cache_of_something_else_is_refused(whole, folder, target, stream, changes, words):
    arguments = {"target": target, "stream": stream, **changes}
    if changes.get("target"):
        arguments["target"] = Target(folder / "model", torch.bfloat16)
    with pytest.raises(SpecdecError, match="were made otherwise") as caught:
        make(whole, folder, **arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("{}", "is not the index of hidden states"),
        ('{"version": 1, "origin": {}, "shard_windows": 0, "shards": []}', "is not the index"),
        ('{"version": 1, "origin": {}, "shard_windows": 1, "shards": [{"file": "x"}]}', "is not the index"),
        ('{"version": 2, "origin": {}, "shard_windows": 1, "shards": []}', "has format version 2"),
    ],
)
def test_a_damaged_index(copied, folder, target, stream, content, words):
    (copied / "index.json").write_text(content)
    with pytest.raises(SpecdecError) as caught:
        make(copied, folder, target, stream)
    assert words in str(caught.value) and "index.json" in str(caught.value)


def test_no_room_on_the_disk(tmp_path, copied, folder, target, stream, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(SpecdecError, match=r"has 0.00 GB free, but the hidden states need 0.07 GB more: make room"):
        filled(make(tmp_path / "new", folder, target, stream))
    assert not list((tmp_path / "new").glob("*.safetensors"))
    assert filled(make(copied, folder, target, stream)) == []  # nothing to write, nothing needed


def test_a_disk_that_fills_up_keeps_finished_shards(tmp_path, folder, target, stream, monkeypatch):
    path, plain = tmp_path / "states", shards_module.replace_file

    def full(file, content):
        if file.name == "hidden-000002.safetensors":
            raise OSError(28, "No space left on device")
        plain(file, content)

    monkeypatch.setattr(shards_module, "replace_file", full)
    with pytest.raises(SpecdecError, match=r"cannot write .* \(No space left on device\): make room .* kept"):
        filled(make(path, folder, target, stream))
    monkeypatch.setattr(shards_module, "replace_file", plain)
    made = made_by(monkeypatch)
    assert filled(make(path, folder, target, stream)) == [] and made[0] == 2


def test_folders_that_cannot_be_used(tmp_path, copied, folder, target, stream):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecdecError, match=r"cannot write to .*file"):
        make(tmp_path / "file", folder, target, stream)
    cache = make(copied, folder, target, stream)
    with (copied / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SpecdecError, match="another run is filling"):
            filled(cache)
    assert filled(cache) == []
    (copied / "hidden-000000.safetensors").unlink()  # between the check and the reading
    with pytest.raises(SpecdecError, match=r"hidden-000000.safetensors can no longer be read .* --resume"):
        cache.hidden(torch.arange(cache.batches.per_epoch), None)


def test_the_index_says_what_the_states_are(whole):
    index = json.loads((whole / "index.json").read_text())
    assert index["origin"]["dtype"] == "float32" and index["origin"]["seq_len"] == LENGTH
    assert sum(s["count"] for s in index["shards"]) == index["origin"]["windows"]
    assert all(len(s["sha256"]) == 64 for s in index["shards"])
