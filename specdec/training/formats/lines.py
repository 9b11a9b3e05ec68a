"""Lines of a UTF-8 file, one at a time, with faults named."""

from collections.abc import Iterator
from pathlib import Path

from specdec.errors import SpecdecError


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(byte at which it begins, line with its line feed) for each line. SpecdecError: the file cannot be read."""
    begin = 0
    try:
        with path.open("rb") as file:
            for line in file:
                yield begin, line
                begin += len(line)
    except OSError as error:
        raise SpecdecError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def decode(content: bytes, path: Path, begin: int) -> str:
    """The text of bytes that stand at byte `begin` of the file."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecdecError(
            f"{path} is not UTF-8 text ({error.reason} at byte {begin + error.start}): convert or leave it out"
        ) from None
