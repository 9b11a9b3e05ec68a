"""Held-out figures of every head at every setting, and their means over seeds."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from _bebop.contestants import PLAIN, SETTINGS

from specdec.drafting import load_calibration
from specdec.evaluation.acceptance import Acceptance
from specdec.evaluation.entropy import Curve, fit, slope_difference
from specdec.evaluation.filters import Filters
from specdec.evaluation.measure import Figures, measure
from specdec.heads import load_head
from specdec.training.batches import held_out_windows
from specdec.training.data import Windows, load_streams
from specdec.training.target import Target

CURVES = {
    "rejection": Curve("rejection", "length", "temperature_1"),
    "target_only": Curve("target_only", "length", "temperature_1"),
}
AGAINST = "ce"  # whose slope the others' are compared with, on the same documents
Run = dict[str, Any]
Results = dict[str, list[Run]]  # contestant -> one for each seed


def measure_heads(folders: dict[str, list[Path]], target: Target, args: argparse.Namespace) -> Results:
    """The figures of all heads. One seed's heads are compared with one another on the same anchors."""
    _, stream = load_streams(target.tokenizer, args.eval_data, args.eval_data)
    windows = held_out_windows(stream, args.batch_tokens // args.seq_len, args.seq_len, args.eval_windows)
    autocast = args.dtype == "bfloat16"
    results: Results = {name: [] for name in folders}
    for number in range(max(map(len, folders.values()))):
        plain: dict[str, Figures] = {}
        for name, of_seeds in folders.items():
            if number < len(of_seeds):
                run, plain[name] = _measure(of_seeds[number], target, windows, args.num_steps_ahead, autocast)
                results[name].append(run)
        for name, figures in plain.items():
            if AGAINST in plain and name not in (AGAINST, "start"):
                own = results[name][-1]["entropy"]
                own["against_ce"] = slope_difference(figures, plain[AGAINST], CURVES["rejection"])
    return results


def _measure(
    folder: Path, target: Target, windows: Sequence[Windows], steps: int, autocast: bool
) -> tuple[Run, Figures]:
    """Figures of one head, and those of its chains at temperature 1, whose entropies are fitted."""
    head, calibration = load_head(folder, target.config), load_calibration(folder)
    [same] = measure([head], target, windows, steps, SETTINGS, autocast)
    [scaled] = measure([head], target, windows, steps, SETTINGS, autocast, calibrations=[calibration])
    run: Run = {"head": folder.name, "settings": {}}
    for setting, own, calibrated in zip(SETTINGS, same, scaled, strict=True):
        scale = calibration.scale(setting.temperature, setting.top_k, setting.top_p, setting.min_p)
        found = Acceptance.of(own, setting).as_dict() | {"scale": scale}
        run["settings"][str(setting)] = found | {"calibrated_length": Acceptance.of(calibrated, setting).length}
    figures = same[SETTINGS.index(PLAIN)]
    run["entropy"] = {name: asdict(fit(figures, curve)) for name, curve in CURVES.items()}
    return run, figures


def mean_length(runs: list[Run], setting: Filters = PLAIN, which: str = "length") -> float:
    """Over seeds. which: length, calibrated_length, greedy_length."""
    return mean(lengths(runs, setting, which))


def lengths(runs: list[Run], setting: Filters = PLAIN, which: str = "length") -> list[float]:
    """By seed."""
    return [run["settings"][str(setting)][which] for run in runs]
