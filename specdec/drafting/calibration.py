"""A head's draft scales, in calibration.json beside its weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.drafting.buckets import BUCKETS, TEMPERATURES, bucket_of
from specdec.errors import SpecdecError
from specdec.files import replace_file

CALIBRATION, VERSION = "calibration.json", 1
SMALLEST, LARGEST = 0.5, 2.0  # of a scale: beyond them something else than sharpness is wrong with a head


@dataclass(frozen=True)
class Calibration:
    """scales: what the head's logits are multiplied by, one for each of BUCKETS."""

    scales: tuple[float, ...]

    def scale(self, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> float:
        """For sampling parameters as in SamplingBatch; 1 for greedy requests."""
        bucket = bucket_of(temperature, top_k, top_p, min_p)
        return 1.0 if bucket is None else self.scales[bucket]


NEUTRAL = Calibration((1.0,) * len(BUCKETS))


def save_calibration(calibration: Calibration, folder: str | Path) -> None:
    """Writes the folder's calibration.json whole or not at all."""
    count = len(TEMPERATURES)
    content = {
        "version": VERSION, "temperatures": TEMPERATURES,
        "plain": calibration.scales[:count], "filtered": calibration.scales[count:],
    }  # fmt: skip
    replace_file(Path(folder) / CALIBRATION, (json.dumps(content, indent=2) + "\n").encode())


def load_calibration(folder: str | Path) -> Calibration:
    """Of the head in this folder; NEUTRAL where it has none. SpecdecError: the file is not what this version writes."""
    path = Path(folder) / CALIBRATION
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return NEUTRAL
    except (OSError, ValueError) as error:
        raise SpecdecError(f"{path} cannot be read ({error}): remove it, or run `specdec head calibrate`") from None
    problem = _problem(content)
    if problem is not None:
        raise SpecdecError(f"{path} {problem}: remove it, or run `specdec head calibrate`")
    return Calibration((*content["plain"], *content["filtered"]))


def _problem(content: Any) -> str | None:
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return f"is not of version {VERSION}"
    if content.get("temperatures") != list(TEMPERATURES):
        return f"has temperatures {content.get('temperatures')}, not {list(TEMPERATURES)}"
    for name in ("plain", "filtered"):
        scales = content.get(name)
        if not isinstance(scales, list) or len(scales) != len(TEMPERATURES):
            return f"has {name!r} {scales!r}, not {len(TEMPERATURES)} scales"
        for scale in scales:
            if not isinstance(scale, int | float) or not SMALLEST <= scale <= LARGEST:
                return f"has the scale {scale!r} in {name!r}, not a number from {SMALLEST} to {LARGEST}"
    return None
