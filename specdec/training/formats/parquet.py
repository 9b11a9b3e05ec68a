"""Parquet files: a document per row. Only the columns that are needed are read, a batch of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

from specdec.errors import SpecdecError
from specdec.training.formats.base import Document, Fields

ROWS = 256  # in memory at a time, beside parquet's own page


class Parquet:
    suffixes = (".parquet",)

    def fits(self, path: Path) -> bool:
        if not path.is_file():
            return False
        if path.suffix in self.suffixes:
            return True
        try:
            with path.open("rb") as file:
                return file.read(4) == b"PAR1"
        except OSError:
            return False  # whoever reads it says why it cannot be read

    def read(self, path: Path, fields: Fields) -> Iterator[Document]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise SpecdecError(f"{path} needs pyarrow, which is not installed: pip install 'specdec[train]'") from None
        number = 0
        try:
            with ParquetFile(path, memory_map=True) as file:
                columns = fields.columns(file.schema_arrow.names, path)
                for batch in file.iter_batches(ROWS, columns=columns):
                    for record in batch.to_pylist():
                        number += 1
                        document = fields.document(record, f"row {number} of {path}")
                        if document is not None:
                            yield document
        except (ArrowException, OSError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = f" after row {number}" if number else ""
            raise SpecdecError(
                f"{path} is not a readable parquet file{where} ({first}): write it again or leave it out"
            ) from None
