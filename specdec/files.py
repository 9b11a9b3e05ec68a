"""Writing files so that nobody reads half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, under a temporary name, which is renamed to `path` when the block ends without an exception:
    readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a whole file at once; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def make_writable(folder: Path) -> None:
    """Makes the folder where it is missing. OSError: no file can be written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
