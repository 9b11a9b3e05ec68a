"""Plain text in UTF-8: a file is one document; one beyond PIECE bytes comes as several, cut at line ends."""

from collections.abc import Iterator
from pathlib import Path

from specdec.training.formats.base import Document, Fields
from specdec.training.formats.lines import decode, lines

PIECE = 1 << 20  # bytes: what one document may hold in memory, as text and while it is tokenized


class Text:
    suffixes = (".py", ".txt", ".md")

    def fits(self, path: Path) -> bool:
        return path.is_file()  # whatever no other format claims

    def read(self, path: Path, fields: Fields) -> Iterator[Document]:
        piece: list[bytes] = []
        begin = size = 0
        for _, line in lines(path):
            if size and size + len(line) > PIECE:
                yield Document(decode(b"".join(piece), path, begin), f"{path} at byte {begin}")
                piece, begin, size = [], begin + size, 0
            piece.append(line)
            size += len(line)
        yield Document(decode(b"".join(piece), path, begin), str(path))
