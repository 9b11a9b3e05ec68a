"""Reading the files that SAEs come in, each fault as one sentence that names file and tensor."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from specdec.errors import SpecdecError


class Tensors:
    """The tensors of one file by name; `take` checks what it hands out.

    In an outline, those of several values are on PyTorch's meta device: they have shapes, and no values to check.
    """

    def __init__(self, path: Path, found: dict[str, Tensor]) -> None:
        self.path, self.found = path, found

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """SpecdecError: no such tensor, or of another number of dimensions."""
        if name not in self.found:
            held = ", ".join(sorted(self.found)) or "none"
            raise SpecdecError(f"{self.path} lacks the tensor {name!r} (it holds {held}): copy the SAE again")
        shape = tuple(self.found[name].shape)
        if len(shape) != dimensions:
            raise SpecdecError(
                f"{self.path} holds {name!r} of shape {list(shape)} where {dimensions} dimensions are needed: copy the "
                "SAE again"
            )
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor as float32. SpecdecError: missing, of another shape, or with a value that is no number."""
        found = self.shape(name, len(shape))
        if found != shape:
            raise SpecdecError(
                f"{self.path} holds {name!r} of shape {list(found)} where {list(shape)} is needed: copy the SAE again"
            )
        tensor = self.found[name].to(torch.float32)
        if not tensor.is_meta and not tensor.isfinite().all():
            raise SpecdecError(f"{self.path} holds NaN or infinity in {name!r}: copy the SAE again, or train it anew")
        return tensor

    def all_ones(self, name: str) -> bool:
        """Whether every value is 1, or not known."""
        tensor = self.found[name].float()
        return tensor.is_meta or torch.allclose(tensor, torch.ones(()))


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecdecError(f"{path} cannot be read ({error}): copy the SAE again") from None
    if not isinstance(content, dict):
        raise SpecdecError(f"{path} holds no JSON object: copy the SAE again")
    return content


def read_safetensors(path: Path, outline: bool = False) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            return Tensors(
                path,
                {name: _meta(s) if outline and prod(s) > 1 else file.get_tensor(name) for name, s in shapes.items()},
            )
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def read_npz(path: Path, outline: bool = False) -> Tensors:
    try:
        if outline:
            return Tensors(path, {name: _meta(shape) for name, shape in _npz_shapes(path).items()})
        with np.load(path, allow_pickle=False) as file:
            return Tensors(path, {name: torch.from_numpy(file[name]) for name in file.files})
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise _objects(path) from None
        raise _damaged(path, error) from None
    except (OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """From the headers of its arrays."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if dtype.hasobject:
                    raise _objects(path)
                shapes[name.removesuffix(".npy")] = shape
    return shapes


def _meta(shape: Sequence[int]) -> Tensor:
    return torch.empty(*shape, device="meta")


def read_pickle(path: Path, outline: bool = False) -> Tensors:
    """The tensors of a file that torch.save wrote; anything in it that would run code is refused."""
    mapped = outline and zipfile.is_zipfile(path)  # what nobody touches is then not read
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of older pickles: what cannot be read is an error below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise SpecdecError(
            f"{path} is a pickle of more than tensors ({_named(error)}): loading it could run code, so it is refused; "
            "convert it to safetensors where you trust it"
        ) from None
    except Exception as error:  # torch and pickle raise several kinds for a damaged file
        raise _damaged(path, error) from None
    if not isinstance(content, dict):
        raise SpecdecError(f"{path} holds a {type(content).__name__}, no tensors by name: save the SAE's state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if outline:
        tensors = {name: _meta(value.shape) if value.numel() > 1 else value for name, value in tensors.items()}
    return Tensors(path, tensors)


def _named(error: Exception) -> str:
    """What a pickle calls when it is loaded, from torch's long message."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it calls {found[1]}" if found else "it has instructions that plain tensors do not need"


def _objects(path: Path) -> SpecdecError:
    return SpecdecError(f"{path} holds Python objects, which could run code when loaded: save plain arrays instead")


def _damaged(path: Path, error: Exception) -> SpecdecError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return SpecdecError(f"{path} is damaged or cut short ({reason}): copy the SAE again")
