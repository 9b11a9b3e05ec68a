"""The results as pictures, beside the JSON file."""

from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _bebop.contestants import SETTINGS
from _bebop.measuring import Results, lengths, mean_length


def draw(results: Results, output: Path) -> list[Path]:
    """Writes NAME-lengths.png, NAME-settings.png and NAME-entropy.png."""
    drawn = {"lengths": _lengths, "settings": _settings, "entropy": _entropy}
    return [_save(function(results), output.with_name(f"{output.stem}-{name}.png")) for name, function in drawn.items()]


def _lengths(results: Results) -> plt.Figure:
    """Mean over seeds at temperature 1, each seed a dot."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    names = list(results)
    axes.barh(names, [mean_length(results[name]) for name in names], color="#9ecae1")
    for name in names:
        axes.plot(lengths(results[name]), [name] * len(results[name]), "k.", markersize=4)
    axes.invert_yaxis()
    axes.set_xlim(left=1)
    axes.set_xlabel("acceptance length at temperature 1 (tokens per step)")
    return figure


def _settings(results: Results) -> plt.Figure:
    """Each head relative to ce (without it: to the first) at every setting, at its draft scale."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    base = results.get("ce") or next(iter(results.values()))
    places = range(len(SETTINGS))
    for name, runs in results.items():
        gains = [
            100 * (mean_length(runs, s, "calibrated_length") / mean_length(base, s, "calibrated_length") - 1)
            for s in SETTINGS
        ]
        axes.plot(places, gains, marker="o", markersize=4, linewidth=2.4 if name == "robust" else 1.2, label=name)
    axes.set_xticks(list(places), [str(s).replace(",", "\n") for s in SETTINGS])
    axes.set_ylabel("acceptance length over ce, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    return figure


def _entropy(results: Results) -> plt.Figure:
    """Length by bins of entropy, mean over seeds, for both ways to verify."""
    figure, sides = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axes, kind in zip(sides, ("rejection", "target_only"), strict=True):
        for name, runs in results.items():
            bins = list(zip(*(run["entropy"][kind]["bins"] for run in runs), strict=True))
            x, y = ([mean(seed[key] for seed in one) for one in bins] for key in ("entropy", "value"))
            axes.plot(x, y, marker=".", label=name)
        axes.set_title(kind.replace("_", "-") + (" sampling" if kind == "rejection" else ""), fontsize=10)
        axes.set_xlabel("target's entropy at temperature 1 (nats)")
        axes.grid(alpha=0.3)
    sides[0].set_ylabel("tokens per step")
    sides[1].legend(fontsize=8)
    return figure


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
