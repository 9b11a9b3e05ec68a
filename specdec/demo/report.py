"""What the demo reports, computed from its measurements. No measuring, no printing here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.demo.acceptance import Acceptance
from specdec.engines.command import Kind
from specdec.files import replace_file

CONCURRENCIES = (1, 8)
TITLES = {
    "none": "no speculation",
    "greedy": "specdec, greedy drafts",
    "specdec": "specdec, sampled drafts",
    "block": "specdec, sampled drafts, block verification",
    "stock": "vLLM's own sampled drafts (known to be wrong on CPU)",
}


@dataclass(frozen=True)
class Measurement:
    """One load on one server. tokens_per_second: all requests' output tokens over wall time; first_token_ms: median."""

    tokens_per_second: float
    first_token_ms: float
    acceptance: Acceptance
    command: str


# Measurements of one kind of run: "eager" or "compiled" -> concurrency -> measurement.
Modes = dict[str, dict[int, Measurement]]


def _rounded(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [round(v, 4) for v in values]


def summarise(modes: dict[str, Measurement]) -> dict[str, Any]:
    """One kind of run at one concurrency; everything but the two named speeds is of the faster configuration."""
    faster, best = max(modes.items(), key=lambda item: item[1].tokens_per_second)
    speed = {mode: round(m.tokens_per_second, 2) for mode, m in modes.items()}
    acceptance = best.acceptance
    return {
        "tokens_per_second": speed[faster],
        "tokens_per_second_eager": speed.get("eager"),
        "tokens_per_second_compiled": speed.get("compiled"),
        "faster": faster,
        "time_to_first_token": round(best.first_token_ms, 2),
        "acceptance_length": None if acceptance.length is None else round(acceptance.length, 4),
        "accepted_per_position": _rounded(acceptance.accepted),
        "expected_acceptance_per_position": _rounded(acceptance.expected),
        "observed_acceptance_per_position": _rounded(acceptance.observed),
        "command": best.command,
    }


def build_report(runs: dict[Kind, Modes], settings: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """The content of report.json."""
    summaries: dict[str, dict[str, Any]] = {}
    for kind, modes in runs.items():
        concurrencies = sorted({c for loads in modes.values() for c in loads})
        summaries[kind] = {
            str(c): summarise({mode: loads[c] for mode, loads in modes.items() if c in loads}) for c in concurrencies
        }
    return {
        "runs": summaries,
        "speedup": speedups(summaries),
        "units": {"tokens_per_second": "output tokens/s, all requests together", "time_to_first_token": "ms, median"},
        "notes": {"stock": TITLES["stock"]},
        "settings": settings,
        "provenance": provenance,
    }


def speedups(summaries: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """kind -> concurrency -> tokens/s over those without speculation, each in its own faster configuration."""
    base = summaries.get("none", {})
    return {
        kind: {c: round(s["tokens_per_second"] / base[c]["tokens_per_second"], 3) for c, s in runs.items() if c in base}
        for kind, runs in summaries.items()
        if kind != "none"
    }


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())


def write_report(folder: Path, report: dict[str, Any], html: str) -> None:
    """report.json and report.html in `folder`."""
    write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "report.html", html)
