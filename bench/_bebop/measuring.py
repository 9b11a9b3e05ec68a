"""Held-out figures of every head at every setting, and their means over seeds."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from _bebop.contestants import SETTINGS
from _bebop.screen import console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from specdec.drafting import NEUTRAL, Calibration, load_calibration
from specdec.evaluation.acceptance import Acceptance
from specdec.evaluation.entropy import fit, slope_difference
from specdec.evaluation.filters import PLAIN, Filters
from specdec.evaluation.measure import Figures, measure
from specdec.evaluation.sheets import SHOWN
from specdec.heads import load_head
from specdec.training.batches import held_out_windows
from specdec.training.data import Windows, load_streams
from specdec.training.target import Target

CURVES = {curve.verify: curve for curve in SHOWN}
AGAINST = "ce"  # whose slope the others' are compared with, on the same documents
Run = dict[str, Any]
Results = dict[str, list[Run]]  # contestant -> one for each seed


def measure_heads(folders: dict[str, list[Path]], target: Target, args: argparse.Namespace) -> Results:
    """The figures of all heads. One seed's heads are compared with one another on the same anchors."""
    _, stream = load_streams(target.tokenizer, args.eval_data, args.eval_data)
    windows = held_out_windows(stream, args.batch_tokens // args.seq_len, args.seq_len, args.eval_windows)
    results: Results = {name: [] for name in folders}
    for number in range(max(map(len, folders.values()))):
        heads = {name: of_seeds[number] for name, of_seeds in folders.items() if number < len(of_seeds)}
        plain = _measure(heads, target, windows, args, results)
        for name, figures in plain.items():
            if AGAINST in plain and name not in (AGAINST, "start"):
                own = results[name][-1]["entropy"]
                own["against_ce"] = slope_difference(figures, plain[AGAINST], CURVES["rejection"])
    return results


def _measure(
    folders: dict[str, Path], target: Target, windows: Sequence[Windows], args: argparse.Namespace, results: Results
) -> dict[str, Figures]:
    """Appends each head's figures to its results. Returns those of its chains at temperature 1, whose entropies count.

    The target runs once for all heads, each with drafts as the request samples and at its own draft scales.
    """
    heads = [load_head(folder, target.config) for folder in folders.values()]
    calibrations = [load_calibration(folder) for folder in folders.values()]
    with Progress("measuring", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=sum(len(batch.tokens) for batch in windows))
        found = measure(
            [*heads, *heads], target, windows, args.num_steps_ahead, SETTINGS, args.dtype == "bfloat16",
            progress=lambda done: progress.update(task, completed=done),
            calibrations=[*[NEUTRAL] * len(heads), *calibrations],
        )  # fmt: skip
    plain = {}
    for name, same, scaled, calibration in zip(
        folders, found[: len(heads)], found[len(heads) :], calibrations, strict=True
    ):
        plain[name] = same[SETTINGS.index(PLAIN)]
        entropy = {kind: asdict(fit(plain[name], curve)) for kind, curve in CURVES.items()}
        results[name].append(
            {"head": folders[name].name, "settings": _by_setting(same, scaled, calibration), "entropy": entropy}
        )
    return plain


def _by_setting(same: list[Figures], scaled: list[Figures], calibration: Calibration) -> dict[str, Any]:
    """Figures of one head by setting, without and with its draft scales."""
    settings = {}
    for setting, own, calibrated in zip(SETTINGS, same, scaled, strict=True):
        scale = calibration.scale(setting.temperature, setting.top_k, setting.top_p, setting.min_p)
        found = Acceptance.of(own, setting).as_dict() | {"scale": scale}
        settings[str(setting)] = found | {"calibrated_length": Acceptance.of(calibrated, setting).length}
    return settings


def mean_length(runs: list[Run], setting: Filters = PLAIN, which: str = "length") -> float:
    """Over seeds. which: length, calibrated_length, greedy_length."""
    return mean(lengths(runs, setting, which))


def lengths(runs: list[Run], setting: Filters = PLAIN, which: str = "length") -> list[float]:
    """By seed."""
    return [run["settings"][str(setting)][which] for run in runs]
