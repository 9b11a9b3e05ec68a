"""One shard: a safetensors file with `hidden` [windows, seq_len, hidden_size], and what is known of its making."""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.files import replace_file
from specdec.training.hidden_cache.fingerprint import file_digest
from specdec.training.hidden_cache.index import Shard

_OPEN = 64  # shards kept open at a time: each holds a file descriptor


def shard_name(number: int) -> str:
    return f"hidden-{number:06}.safetensors"


def write_shard(folder: Path, number: int, first: int, hidden: Tensor) -> Shard:
    """Writes windows first.. [n, T, d], whole or not at all."""
    content = save({"hidden": hidden.contiguous()}, metadata={"first": str(first)})
    replace_file(folder / shard_name(number), content)
    return Shard(shard_name(number), first, len(hidden), len(content), hashlib.sha256(content).hexdigest())


def fault_of(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard that the index lists as finished, or None. Reads all of it."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size != shard.size:
            return f"has {size} bytes instead of {shard.size}"
        return None if file_digest(path) == shard.sha256 else "is damaged or from another cache (its checksum differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


class ShardReader:
    """Rows of shards, mapped from disk rather than loaded; the shards used last stay open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[int, Any] = OrderedDict()

    def window(self, shard: int, row: int) -> Tensor:
        """States [seq_len, hidden_size] of one window. SpecdecError: the file has changed since it was checked."""
        path = self.folder / shard_name(shard)
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(path, framework="pt").get_slice("hidden")
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
            states: Tensor = self._open[shard][row]
        except (SafetensorError, OSError, IndexError) as error:
            raise SpecdecError(
                f"{path} can no longer be read ({error}): go on with --resume, which makes it anew"
            ) from None
        return states


def bytes_per_window(seq_len: int, hidden_size: int, dtype: torch.dtype) -> int:
    return seq_len * hidden_size * dtype.itemsize
