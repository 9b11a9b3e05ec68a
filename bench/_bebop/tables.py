"""The results as tables: losses, settings, entropy."""

from statistics import mean

from _bebop.contestants import SETTINGS
from _bebop.measuring import Results, Run, lengths, mean_length
from rich.table import Table

from specdec.evaluation.sheets import interval


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def loss_table(results: Results) -> Table:
    """Bebop's Table 2: gains over ce and over kl, in percent of their acceptance lengths."""
    table = _table(
        "acceptance length at temperature 1, rejection sampling, held-out text",
        "head", "seeds", "length", "over ce", "over kl", "lowest-highest", "acceptance per step", "target-only length",
    )  # fmt: skip
    for name, runs in results.items():
        spread, alphas = lengths(runs), [run["settings"]["T=1"]["alpha"] for run in runs]
        table.add_row(
            name, str(len(runs)), f"{mean_length(runs):.3f}", _gain(runs, results.get("ce")),
            _gain(runs, results.get("kl")), f"{min(spread):.3f}-{max(spread):.3f}",
            " ".join(f"{mean(step):.3f}" for step in zip(*alphas, strict=True)),
            f"{mean_length(runs, which='greedy_length'):.3f}",
        )  # fmt: skip
    return table


def _gain(runs: list[Run], base: list[Run] | None) -> str:
    return "" if base is None else f"{100 * (mean_length(runs) / mean_length(base) - 1):+.1f} %"


def robust_table(results: Results) -> Table:
    """Acceptance length at every setting: with drafts as the request samples / at the calibrated draft scale."""
    table = _table(
        "acceptance length by setting: drafts at the request's own temperature / at the head's draft scale",
        "head", *(str(setting) for setting in SETTINGS),
    )  # fmt: skip
    for name, runs in results.items():
        cells = (f"{mean_length(runs, s):.3f} / {mean_length(runs, s, 'calibrated_length'):.3f}" for s in SETTINGS)
        table.add_row(name, *cells)
    return table


def entropy_table(results: Results) -> Table:
    """Slopes by seed, tokens per step for each nat, with their intervals."""
    table = _table(
        "slope of acceptance length against the target's entropy at temperature 1, per nat [95 %], by seed",
        "head", "rejection sampling", "target-only", "rejection sampling, minus ce's",
    )  # fmt: skip
    for name, runs in results.items():
        entropies = [run["entropy"] for run in runs]
        differences = [interval(e["against_ce"], "difference") for e in entropies if "against_ce" in e]
        table.add_row(
            name, *("\n".join(interval(e[kind], "slope") for e in entropies) for kind in ("rejection", "target_only")),
            "\n".join(differences),
        )  # fmt: skip
    return table
