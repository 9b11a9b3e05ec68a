"""The weight files of a model's folder: which file holds which tensor; reading them, and writing over some of them."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from specdec.errors import SpecdecError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Entry:
    """One tensor: its file's name, safetensors' name of its type, its shape, and its size in bytes."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class WeightFiles:
    """Every tensor of a folder by name, from the files' headers; the index decides where there is one, as in engines.

    Raises SpecdecError: no safetensors files, a damaged index or file, an index that names what is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}
        weight_map = self._weight_map()
        for file in sorted(set(weight_map.values())):
            found = read_header(self.folder / file)[0]
            for name in (name for name, where in weight_map.items() if where == file):
                if name not in found:
                    raise SpecdecError(
                        f"{self.folder / INDEX} says that {file} holds {name!r}, but it does not: mend it"
                    )
                first, last = found[name]["data_offsets"]
                self.entries[name] = Entry(file, found[name]["dtype"], tuple(found[name]["shape"]), last - first)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors as they are."""
        found: dict[str, Tensor] = {}
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self.entries[name].file, []).append(name)
        for file, wanted in by_file.items():
            try:
                with safe_open(self.folder / file, framework="pt") as opened:
                    found |= {name: opened.get_tensor(name) for name in wanted}
            except (OSError, SafetensorError) as error:
                raise _damaged(self.folder / file, error) from None
        return found

    def _weight_map(self) -> dict[str, str]:
        index = self.folder / INDEX
        if index.exists():
            try:
                weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _damaged(index, error) from None
            return weight_map
        if not (self.folder / SINGLE).exists():
            raise SpecdecError(
                f"{self.folder} holds neither {INDEX} nor {SINGLE}: give a model whose weights are safetensors files"
            )
        return dict.fromkeys(read_header(self.folder / SINGLE)[0], SINGLE)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(name -> {dtype, shape, data_offsets}, where the data begins) of a safetensors file.

    Raises SpecdecError where the file is missing, damaged or cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begins = 8 + int.from_bytes(file.read(8), "little")
            if begins > size:
                raise ValueError("its header is cut short")
            entries: dict[str, Any] = json.loads(file.read(begins - 8))
        entries.pop("__metadata__", None)
        if size != begins + max((entry["data_offsets"][1] for entry in entries.values()), default=0):
            raise ValueError("its tensors are cut short")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    return entries, begins


def overwrite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes these tensors over those of the same names, types and shapes; no other byte of the file changes."""
    entries, begins = read_header(path)
    with path.open("r+b") as file:
        for name, tensor in tensors.items():
            first, last = entries[name]["data_offsets"]
            data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            assert data.nbytes == last - first, f"{name}: {data.nbytes} bytes where {last - first} are needed"
            file.seek(begins + first)
            file.write(data.data)
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, error: Exception) -> SpecdecError:
    return SpecdecError(f"{path} is missing, damaged or cut short ({error}): copy the model again")
