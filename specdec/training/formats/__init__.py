"""Formats of training data, one file each, and the walk over what the user gave.

To add one: a class as in base.Format in a file of its own, and a line in the table below.
The first that fits a path reads it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from specdec.errors import SpecdecError
from specdec.registry import Registry
from specdec.training.formats.base import USUAL_FIELDS, Chat, Document, Fields, Format, Tokens

__all__ = ["FORMATS", "Chat", "Document", "Fields", "Format", "Tokens", "check_paths", "format_of", "read_documents"]


FORMATS: Registry[Format] = Registry("data format")
for _name, _file, _class in (
    ("datasets", "dataset_folder", "DatasetFolder"),
    ("parquet", "parquet", "Parquet"),
    ("jsonl", "jsonl", "JsonLines"),
    ("text", "text", "Text"),  # last: it takes any file
):
    FORMATS.register_attribute(_name, f"{__name__}.{_file}", _class)


def format_of(path: Path) -> Format | None:
    """The format that reads this file or folder; None for a folder that is to be searched."""
    return next((f for f in map(FORMATS.get, FORMATS.names()) if f.fits(path)), None)


def suffixes() -> list[str]:
    """Of the files that a folder is searched for."""
    return [suffix for name in FORMATS.names() for suffix in FORMATS.get(name).suffixes]


def check_paths(paths: Sequence[str | Path]) -> None:
    """Raises SpecdecError for the first path that is not there: before anything heavy is loaded."""
    for path in paths:
        if not Path(path).exists():
            raise SpecdecError(f"there is no data at {path}: check the path")


def read_documents(paths: Sequence[str | Path], fields: Fields = USUAL_FIELDS) -> Iterator[Document]:
    """All documents under the paths, lazily, in a fixed order; blank ones are left out.

    SpecdecError: missing, unreadable, broken, or no text at all under one of the paths.
    """
    check_paths(paths)
    for path in map(Path, paths):
        empty = True
        for source, form in _sources(path):
            for document in form.read(source, fields):
                if not document.is_blank():
                    empty = False
                    yield _grouped(document, source, fields)
        if empty:
            raise SpecdecError(
                f"{path} holds no text: give a file or a `datasets` folder with text, messages or token ids, or a "
                f"folder with {', '.join('*' + s for s in suffixes())} files"
            )


def _grouped(document: Document, source: Path, fields: Fields) -> Document:
    """The document with its file as its group, where no field says otherwise."""
    if document.group is not None:
        return document
    if fields.by is not None:
        raise SpecdecError(f"{source} has no fields, so no {fields.by!r}: give records (JSONL, tables), or drop --by")
    return replace(document, group=str(source))


def _sources(path: Path) -> Iterator[tuple[Path, Format]]:
    form = format_of(path)
    if form is not None:
        yield path, form
        return
    wanted = suffixes()
    try:
        children = sorted(path.iterdir())
    except OSError as error:
        raise SpecdecError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    for child in children:
        if child.is_symlink() and child.is_dir():
            continue  # it may lead back up
        if child.is_dir() or (child.is_file() and child.suffix in wanted):
            yield from _sources(child)
