"""JSON lines: an object per line, one document each."""

import json
from collections.abc import Iterator
from pathlib import Path

from specdec.errors import SpecdecError
from specdec.training.formats.base import Document, Fields
from specdec.training.formats.lines import decode, lines


class JsonLines:
    suffixes = (".jsonl",)

    def fits(self, path: Path) -> bool:
        return path.is_file() and path.suffix in self.suffixes

    def read(self, path: Path, fields: Fields) -> Iterator[Document]:
        for number, (begin, line) in enumerate(lines(path), 1):
            if not line.strip():
                continue
            origin = f"line {number} of {path}"
            try:
                record = json.loads(decode(line, path, begin))
            except (ValueError, RecursionError) as error:
                if isinstance(error, SpecdecError):  # it is a ValueError, with a better sentence
                    raise
                raise SpecdecError(f"{origin} is not a JSON object: mend or remove it") from None
            document = fields.document(record, origin)
            if document is not None:
                yield document
