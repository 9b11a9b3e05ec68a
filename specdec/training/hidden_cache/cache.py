"""Fills a cache of hidden states before training, and gives the trainer its batches' states from it."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.training.batches import Batches
from specdec.training.data import Windows
from specdec.training.hidden_cache.fingerprint import model_fingerprint
from specdec.training.hidden_cache.index import Origin, Shard, load_index, save_index
from specdec.training.hidden_cache.shards import ShardReader, bytes_per_window, fault_of, shard_name, write_shard
from specdec.training.target import Target

SHARD_BYTES = 256 << 20  # what an interruption costs at most, and what is in memory at a time
_SPARE = 64 << 20  # bytes left free on the disk: for the head, the index, the file system's own needs


class HiddenCache:
    """States of all windows of `batches`, in `folder`. First `fill`, then `hidden` stands in for the target."""

    def __init__(self, folder: Path, target: Target, batches: Batches, model: Path) -> None:
        """Raises SpecdecError: the folder cannot be used, or holds the states of another model, data or layout."""
        self.folder, self.target, self.batches = folder, target, batches
        self.dtype: torch.dtype = target.weight.dtype
        size = int(target.config.hidden_size)
        self.window_bytes = bytes_per_window(batches.length, size, self.dtype)
        self.origin = Origin(
            model_fingerprint(model), batches.stream.fingerprint, str(self.dtype).removeprefix("torch."),
            batches.length, batches.overlap, batches.per_epoch, size,
        )  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecdecError(f"cannot write to {folder} ({error.strerror}): choose another --cache-hidden") from None
        found = load_index(folder, self.origin)
        self.shard_windows, self.shards = found or (max(1, SHARD_BYTES // self.window_bytes), [])
        self._reader = ShardReader(folder)

    @property
    def bytes(self) -> int:
        """Of all states."""
        return self.batches.per_epoch * self.window_bytes

    def __str__(self) -> str:
        tokens, size = self.batches.per_epoch * self.batches.length, self.origin.hidden_size
        return (
            f"hidden states of {tokens:,} tokens x {size:,} x {self.dtype.itemsize} bytes = {self.bytes / 1e9:,.2f} GB "
            f"in {self.folder}"
        )

    def fill(self, warn: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
        """Checks the shards that are there, then makes those that are missing or broken, each named to `warn`.

        progress(done, all) counts windows, checked or made. Raises SpecdecError: no room on the disk, a disk fault.
        """
        with self._alone():
            good = self._good_shards(warn, progress)
            self._check_room(sum(shard.size for shard in good.values()))
            done = sum(shard.count for shard in good.values())
            for number in range(-(-self.batches.per_epoch // self.shard_windows)):
                if number not in good:
                    good[number] = self._make(number)
                    self._enter(good)
                    done += good[number].count
                    progress(done, self.batches.per_epoch)

    def hidden(self, numbers: Tensor, windows: Windows) -> Tensor:
        """States [rows, T, d] of windows by their numbers, on the target's device: the trainer's source of states."""
        places = (divmod(number, self.shard_windows) for number in numbers.tolist())
        return torch.stack([self._reader.window(*place) for place in places]).to(self.target.device)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one run fills a folder at a time; also turns faults of the disk into one sentence."""
        try:
            with (self.folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise SpecdecError(
                        f"another run is filling {self.folder}: wait for it, or give another --cache-hidden"
                    ) from None
                for left in self.folder.glob(".hidden-*.tmp"):
                    left.unlink()  # of an interrupted run
                yield
        except OSError as error:
            raise SpecdecError(
                f"cannot write hidden states to {self.folder} ({error.strerror}): make room or choose another "
                "--cache-hidden; finished shards are kept"
            ) from None

    def _good_shards(self, warn: Callable[[str], None], progress: Callable[[int, int], None]) -> dict[int, Shard]:
        good: dict[int, Shard] = {}
        checked = 0
        for shard in self.shards:
            number = shard.first // self.shard_windows
            if fault := fault_of(self.folder, shard):
                warn(f"{self.folder / shard.file} {fault}: making it anew")
            elif shard.file == shard_name(number) and shard.count == len(self._numbers(number)):
                good[number] = shard
            checked += shard.count
            progress(checked, self.batches.per_epoch)
        return good

    def _check_room(self, present: int) -> None:
        needed, free = self.bytes - present + _SPARE, shutil.disk_usage(self.folder).free
        if needed > free and self.bytes > present:
            raise SpecdecError(
                f"{self.folder} has {free / 1e9:.2f} GB free, but the hidden states need {needed / 1e9:.2f} GB more: "
                "make room, give a --cache-hidden folder on another disk, or train without it"
            )

    def _numbers(self, shard: int) -> Tensor:
        first = shard * self.shard_windows
        return torch.arange(first, min(first + self.shard_windows, self.batches.per_epoch))

    def _make(self, shard: int) -> Shard:
        """Runs the target on as many windows at a time as training does: memory that suffices there does here."""
        numbers = self._numbers(shard)
        parts = [self.target.hidden(self.batches.windows(part)).cpu() for part in numbers.split(self.batches.rows)]
        return write_shard(self.folder, shard, int(numbers[0]), torch.cat(parts))

    def _enter(self, shards: dict[int, Shard]) -> None:
        self.shards = [shards[number] for number in sorted(shards)]
        save_index(self.folder, self.origin, self.shard_windows, self.shards)
