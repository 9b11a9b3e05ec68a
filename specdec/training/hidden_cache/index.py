"""index.json of a cache: what its states belong to, and which shards are finished."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.files import replace_file

INDEX = "index.json"
VERSION = 1


@dataclass(frozen=True)
class Origin:
    """What the states depend on. model, data: SHA-256 of the weights and of the stream of tokens; dtype: "bfloat16".

    windows of seq_len tokens, each beginning `overlap` before its predecessor's end; hidden_size: values a token.
    """

    model: str
    data: str
    dtype: str
    seq_len: int
    overlap: int
    windows: int
    hidden_size: int

    def differences(self, other: dict[str, Any]) -> list[str]:
        """In words, what differs from another cache's entry."""
        words = {
            "model": "the model's weights or configuration", "data": "the data or the tokenizer", "dtype": "--dtype",
            "seq_len": "--seq-len", "overlap": "--num-steps-ahead", "windows": "the data", "hidden_size": "the model",
        }  # fmt: skip
        return list(dict.fromkeys(words[f.name] for f in fields(self) if getattr(self, f.name) != other.get(f.name)))


@dataclass(frozen=True)
class Shard:
    """A finished file: its size in bytes and SHA-256. Windows first..first+count-1 are in it."""

    file: str
    first: int
    count: int
    size: int
    sha256: str


def _shard(entry: dict[str, Any]) -> Shard:
    numbers = {name: int(entry[name]) for name in ("first", "count", "size")}
    return Shard(file=str(entry["file"]), sha256=str(entry["sha256"]), **numbers)


def save_index(folder: Path, origin: Origin, shard_windows: int, shards: list[Shard]) -> None:
    """Whole or not at all. shard_windows: windows in each shard but the last."""
    content = {
        "version": VERSION, "origin": asdict(origin), "shard_windows": shard_windows,
        "shards": [asdict(s) for s in shards],
    }  # fmt: skip
    replace_file(folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def load_index(folder: Path, origin: Origin) -> tuple[int, list[Shard]] | None:
    """(windows a shard, finished shards); None: there is no index. SpecdecError: another cache's, or unreadable."""
    path = folder / INDEX
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SpecdecError(
            f"{path} cannot be read ({error}): remove the folder, and its states are made anew"
        ) from None
    try:
        version, found = content["version"], dict(content["origin"])
        shard_windows, shards = int(content["shard_windows"]), [_shard(entry) for entry in content["shards"]]
        if shard_windows < 1:
            raise ValueError("shards without windows")
    except (KeyError, TypeError, ValueError):
        raise SpecdecError(
            f"{path} is not the index of hidden states: give a new or empty folder to --cache-hidden"
        ) from None
    if version != VERSION:
        raise SpecdecError(
            f"{path} has format version {version}, this specdec reads {VERSION}: give another --cache-hidden folder"
        )
    if changed := origin.differences(found):
        raise SpecdecError(
            f"the states in {folder} were made otherwise ({', '.join(changed)} differ): give another --cache-hidden "
            "folder, or remove this one"
        )
    return shard_windows, shards
