"""Folders that `datasets` wrote with save_to_disk: Arrow files, mapped into memory, a document per row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.training.formats.base import Document, Fields

ROWS = 256  # decoded at a time


class DatasetFolder:
    suffixes: tuple[str, ...] = ()

    def fits(self, path: Path) -> bool:
        return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()

    def read(self, path: Path, fields: Fields) -> Iterator[Document]:
        try:
            dataset = _load(path)
            dataset = dataset.with_format(None).select_columns(fields.columns(dataset.column_names, path))
            for begin in range(0, len(dataset), ROWS):
                yield from _rows(dataset[begin : begin + ROWS], begin, path, fields)
        except SpecdecError:
            raise
        except Exception as error:  # pyarrow, json and datasets raise many kinds for damaged files
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SpecdecError(
                f"{path} is not a readable datasets folder ({first}): write it again with save_to_disk"
            ) from None


def _load(path: Path) -> Any:
    """The dataset, or the split `train`, or the only one. load_from_disk reads Arrow and JSON, no code."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise SpecdecError(f"{path} needs `datasets`, which is not installed: pip install 'specdec[train]'") from None
    dataset = load_from_disk(str(path))
    if not isinstance(dataset, DatasetDict):
        return dataset
    if "train" in dataset or len(dataset) == 1:
        return dataset["train"] if "train" in dataset else next(iter(dataset.values()))
    names = ", ".join(dataset)
    raise SpecdecError(f"{path} holds the splits {names or '(none)'}: give the folder of one, such as {path}/NAME")


def _rows(columns: dict[str, list[Any]], begin: int, path: Path, fields: Fields) -> Iterator[Document]:
    for i, values in enumerate(zip(*columns.values(), strict=True), begin + 1):
        document = fields.document(dict(zip(columns, values, strict=True)), f"row {i} of {path}")
        if document is not None:
            yield document
