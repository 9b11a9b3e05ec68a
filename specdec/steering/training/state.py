"""The output folder of a run: the SAE in SAELens' layout, training_state.pt to go on from, training.json when done."""

from pathlib import Path
from typing import Any

import torch

from specdec.errors import SpecdecError
from specdec.files import make_writable
from specdec.steering.formats.saelens import CONFIG
from specdec.training.state import STATE


def prepare_output(folder: Path, resume: bool) -> dict[str, Any] | None:
    """Checks that the folder can be written; returns the state to go on from with `resume`.

    SpecdecError: not writable; holds a run or an SAE already and `resume` is off; nothing to resume; finished.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise SpecdecError(f"cannot write to {folder} ({error.strerror}): choose another --output") from None
    if not (folder / STATE).exists():  # it is removed last: an SAE beside one may lack its figures
        if (folder / CONFIG).exists():
            raise SpecdecError(f"{folder} already holds an SAE: choose another --output")
        if resume:
            raise SpecdecError(f"there is no run to resume in {folder}: leave out --resume to start one")
        return None
    if not resume:
        raise SpecdecError(f"{folder} already holds a training run: add --resume to go on, or choose another --output")
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise several kinds for a damaged file
        raise SpecdecError(
            f"{folder / STATE} is damaged ({type(error).__name__}): start again in another --output"
        ) from error
    return state
