"""The output folder of a run: the head, training_state.pt to go on from, training.json when done."""

import json
from pathlib import Path
from typing import Any

import torch

from specdec.drafting import Calibration, save_calibration
from specdec.errors import SpecdecError
from specdec.files import make_writable, replace_file, replacing
from specdec.heads.checkpoint import CONFIG, save_head
from specdec.heads.module import MTPHead

STATE, REPORT = "training_state.pt", "training.json"


def prepare_output(folder: Path, resume: bool) -> dict[str, Any] | None:
    """Checks, before anything heavy, that the folder can be written; returns the state to go on from with `resume`.

    Raises SpecdecError: not writable; holds a run or a head already and `resume` is off; nothing to resume; finished.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise SpecdecError(f"cannot write to {folder} ({error.strerror}): choose another --output") from None
    if not resume:
        if (folder / STATE).exists() or (folder / CONFIG).exists():
            raise SpecdecError(
                f"{folder} already holds a training run: add --resume to go on, or choose another --output"
            )
        return None
    if not (folder / STATE).exists():
        raise SpecdecError(f"there is no run to resume in {folder}: leave out --resume to start one")
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise several kinds for a damaged file
        raise SpecdecError(
            f"{folder / STATE} is damaged ({type(error).__name__}): start again in another --output"
        ) from error
    if state["finished"]:
        raise SpecdecError(
            f"the run in {folder} is finished ({state['step']} steps): train on with --init-from {folder}"
        )
    return state


def check_unchanged(folder: Path, state: dict[str, Any], fingerprints: dict[str, str]) -> None:
    """Raises SpecdecError where the run in `folder` was started on something else than what has these fingerprints.

    A state without one of them is from before it was kept, and taken at its word.
    """
    for name, fingerprint in fingerprints.items():
        if state.get(name, fingerprint) != fingerprint:
            raise SpecdecError(
                f"the {name} has changed since the run in {folder} was started: restore it, or train into another "
                "--output"
            )


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes training_state.pt whole or not at all."""
    with replacing(folder / STATE) as file:
        torch.save(state, file)


def finish(
    folder: Path, head: MTPHead, calibration: Calibration, report: dict[str, Any], state: dict[str, Any]
) -> None:
    """Writes the head, then the report, then marks the run finished: cut short in between, --resume does it again."""
    save_calibration(calibration, folder)
    save_head(head, folder)
    replace_file(folder / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    save_state(folder, state)
