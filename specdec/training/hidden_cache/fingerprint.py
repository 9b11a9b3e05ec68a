"""What identifies a model: every byte of its weights and its configuration, whatever its folder is called."""

import hashlib
from pathlib import Path

from specdec.errors import SpecdecError

WEIGHTS = ("*.safetensors", "*.bin")
_BLOCK = 1 << 24


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def model_fingerprint(folder: str | Path) -> str:
    """SHA-256 over config.json and the weight files: another training step of the same model is another model.

    Reading them takes about a second per gigabyte, much less than the states that this protects.
    """
    folder = Path(folder)
    files = [folder / "config.json", *sorted(f for pattern in WEIGHTS for f in folder.glob(pattern))]
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(f"{file.name} {file_digest(file)}\n".encode())
        except OSError as error:
            raise SpecdecError(f"{file} cannot be read ({error.strerror}): check the model's folder") from None
    return digest.hexdigest()
