"""The Python standard library's source, split by file into training and held-out text.

The split hangs on each file's own path (`sha256(path) % 20 == 0` is held out), so it is the same on every machine and
for every Python version: a file that was trained on here never turns up as held-out text elsewhere.
Licence of the text: the Python Software Foundation License, version 2 (see LICENSE-NOTE.md beside this file).
"""

import argparse
import hashlib
import json
import sysconfig
from pathlib import Path

# Tables and fixtures rather than source code: long runs of numbers, other encodings, deliberately broken syntax.
LEFT_OUT = (
    "site-packages",
    "dist-packages",
    "encodings",
    "lib2to3",
    "__pycache__",
    "cjkencodings",
    "pydoc_data",
    "ensurepip",
)
MAX_BYTES = 400_000


def stdlib_files() -> list[tuple[str, Path]]:
    """Every usable source file as (path relative to the library, absolute path), sorted by the former."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not any(part in LEFT_OUT for part in relative.parts) and 200 <= path.stat().st_size <= MAX_BYTES:
            found.append((relative.as_posix(), path))
    return sorted(found)


def is_held_out(relative: str) -> bool:
    return int.from_bytes(hashlib.sha256(relative.encode()).digest()[:8], "big") % 20 == 0


def documents(held_out: bool) -> list[tuple[str, str]]:
    """(relative path, text) of one side of the split; files that are not UTF-8 are passed over."""
    out = []
    for relative, path in stdlib_files():
        if is_held_out(relative) == held_out:
            try:
                out.append((relative, path.read_text("utf-8")))
            except UnicodeDecodeError:
                continue
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Writes the two sides of the split as JSON lines, for `specdec train`."
    )
    parser.add_argument("--output", type=Path, default=Path("build/tiny-lm/text"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, held_out in (("train", False), ("held-out", True)):
        lines = [json.dumps({"text": text, "file": relative}) for relative, text in documents(held_out)]
        (args.output / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{args.output / name}.jsonl: {len(lines)} documents")


if __name__ == "__main__":
    main()
