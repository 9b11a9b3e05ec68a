"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specdec.errors import SpecdecError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends without an exception.

    Raises SpecdecError: `path` is taken, cannot be written, or the disk is full.
    """
    if path.exists():
        raise SpecdecError(f"{path} exists already: choose another --output, or remove it")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SpecdecError(f"cannot write {path} ({error.strerror or error}): choose another --output") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def link_tree(source: Path, target: Path) -> None:
    """Fills the folder `target` with what `source` holds: hard links, copies where the file system has none."""
    ignored = shutil.ignore_patterns(".git", ".cache", "__pycache__")
    shutil.copytree(source, target, copy_function=_link, ignore=ignored, dirs_exist_ok=True)


def own_copy(path: Path) -> None:
    """Makes a hard-linked file one of its own, so that writing into it leaves the other names' content alone."""
    copy = path.with_name(f".{path.name}.copy")
    shutil.copyfile(path, copy)
    shutil.copymode(path, copy)
    os.replace(copy, path)


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)  # the Hub's cache holds symbolic links
    except OSError:
        shutil.copy2(source, target)
