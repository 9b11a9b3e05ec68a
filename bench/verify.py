"""How long does a verify step take on the CPU, beside the reference in PyTorch?

First both must give the same tokens on the very inputs that are timed; then the median of repeated calls, alternating
between the two. Drafts are sampled with `sample_draft`, so the C++ gets the row statistics that it gets in an engine.

    python bench/verify.py            the whole grid, about a minute; results in bench/results/verify.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from specdec.demo.report import write_atomically
from specdec.provenance import provenance
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, backends, sample_draft, verify

DRAFTS = 3
BASELINE = "reference"


def make_case(batch: int, vocabulary: int, dtype: torch.dtype, filters: dict[str, Any]) -> tuple[Any, ...]:
    """(target logits [B * 4, V], draft, sampling) of one step; the head resembles its target as a trained one does."""
    generator = torch.Generator().manual_seed(0)
    target = 4 * torch.randn(batch, DRAFTS + 1, vocabulary, generator=generator)
    head = target[:, :DRAFTS] + torch.randn(batch, DRAFTS, vocabulary, generator=generator)
    sampling = SamplingBatch.uniform(batch, temperature=1.0, seed=1, position=5, **filters)
    head = head.to(dtype)
    steps = [sample_draft(head[:, j], sampling, j) for j in range(DRAFTS)]
    draft = Draft(
        torch.stack([tokens for tokens, _ in steps], 1).flatten(),
        [DRAFTS] * batch,
        logits=head.flatten(0, 1),
        row_stats=torch.stack([stats for _, stats in steps], 1).flatten(0, 1),
    )
    return target.to(dtype).flatten(0, 1), draft, sampling


def median_ms(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each call; they take turns, so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or min(len(t) for t in times.values()) < 3:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(t) for name, t in times.items()}


def measure(batch: int, vocabulary: int, dtype: torch.dtype, filters: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One cell of the grid. RuntimeError where a backend's tokens differ from the reference's."""
    target, draft, sampling = make_case(batch, vocabulary, dtype, filters)
    calls = {name: lambda name=name: verify(target, draft, sampling, backend=name) for name in backends()}
    expected = calls[BASELINE]().token_ids
    for name, call in calls.items():
        if not torch.equal(call().token_ids, expected):
            raise RuntimeError(f"{name} differs from {BASELINE} at batch {batch}, vocabulary {vocabulary}, {filters}")
    case = {"batch": batch, "vocabulary": vocabulary, "dtype": str(dtype).removeprefix("torch."), "filters": filters}
    return {**case, "median_ms": median_ms(calls, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each cell")
    parser.add_argument("--output", type=Path, default=Path("bench/results/verify.json"))
    args = parser.parse_args()
    grid = [(b, v) for v in (1024, 32_000, 151_936) for b in (1, 8)]
    table = Table("batch", "vocabulary", "filters", *backends(), f"against {BASELINE}", box=SIMPLE)
    cells = []
    for batch, vocabulary in grid:
        for filters in ({}, {"top_k": 50, "top_p": 0.9}):
            cell = measure(batch, vocabulary, torch.bfloat16, filters, args.seconds)
            cells.append(cell)
            times = cell["median_ms"]
            gain = times[BASELINE] / min(times.values())
            words = ", ".join(f"{k} {v}" for k, v in filters.items()) or "none"
            shown = [f"{times[name]:.3f} ms" for name in backends()]
            table.add_row(str(batch), str(vocabulary), words, *shown, f"{gain:.1f}×")
    Console(width=110).print(table)
    result = {"question": "median ms of one verify step, three drafts", "cells": cells, "provenance": provenance()}
    write_atomically(args.output, json.dumps(result, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
