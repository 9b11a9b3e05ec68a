"""How long does a verify step take, beside vLLM's own and beside reading its bytes once?

For each cell every backend of ours must give the reference's tokens on the very rows that are timed (of the first
eight requests; the others must not change them). Then all take turns: "rotated" goes through copies that together
exceed the last-level cache, as in serving; "warm" meets the same copy again and again. Extra memory is what one call
holds at most beyond its inputs. The floor reads target and draft rows once, with torch.sum.

By default one axis at a time is varied from the cell batch 8, drafts 3, vocabulary 151,936, bf16, T=0.8, top-k 50,
top-p 0.95. Cells that --output holds already are not run again. vLLM V1, SGLang and FlashInfer leave min-p out.

On a GPU the time is the device's, with the host ahead of it; what the host takes to issue a step is in the results too.

    python bench/verify.py                                  about 15 minutes on two cores
    python bench/verify.py --only --batch 1 8 --drafts 3    every combination of what is given, the rest as above
    python bench/verify.py --full                           every combination of every axis: hours on a CPU
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _verify.cases import FILTERS, Case, Shape, make_case
from _verify.contenders import CONTENDERS, Contender
from _verify.timing import extra_bytes, host_us, medians_ms
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from specdec.demo.report import write_atomically
from specdec.provenance import provenance
from specdec.verify import backends, verify

HOME = Shape(8, 3, 151_936, "bfloat16", "T=0.8 k=50 p=0.95")
AXES: dict[str, list[Any]] = {
    "batch": [1, 8, 32, 128],
    "drafts": [1, 3, 7],
    "vocabulary": [32_000, 128_256, 151_936, 248_320],
    "dtype": ["bfloat16", "float32"],
    "filters": list(FILTERS),
}
CHECKED = 8  # requests whose tokens are compared with the reference's: it takes seconds for each hundred rows


def shapes(args: argparse.Namespace) -> list[Shape]:
    given = {axis: getattr(args, axis) for axis in AXES if getattr(args, axis)}
    if args.full or args.only:
        values = [given.get(axis) or (AXES[axis] if args.full else [getattr(HOME, axis)]) for axis in AXES]
        return [Shape(*combination) for combination in itertools.product(*values)]
    return list(dict.fromkeys(_star({axis: given.get(axis, values) for axis, values in AXES.items()})))


def _star(axes: dict[str, list[Any]]) -> Iterator[Shape]:
    yield HOME
    for axis, values in axes.items():
        for value in values:
            yield Shape(**{**HOME.as_dict(), axis: value})


def check_equal(case: Case) -> float:
    """The mean number of accepted drafts. RuntimeError where a backend's tokens are not the reference's."""
    few = case.first(min(CHECKED, case.shape.batch))
    accepted = 0.0
    for method in ("token", "block"):
        expected = verify(few.target, few.draft, few.sampling, method, "reference").token_ids
        for name in backends():
            if name == "reference" or (name in ("cuda", "triton")) != case.target.is_cuda:
                continue
            out = verify(case.target, case.draft, case.sampling, method, name)
            if not torch.equal(out.token_ids[: len(few.sampling)], expected):
                raise RuntimeError(f"{name} differs from the reference, method {method}, at {case.shape}")
            if method == "token":
                accepted = out.num_accepted.float().mean().item()
    return accepted


def measure(shape: Shape, contenders: list[Contender], device: str, args: argparse.Namespace) -> dict[str, Any]:
    case = make_case(shape, device, args.noise)
    accepted = check_equal(case)
    copies = max(2, min(64, -(-args.rotate_mib * 2**20 // shape.floor_bytes)))
    cases = [case, *(case.clone() for _ in range(copies - 1))]
    calls = {c.name: [c.make(one) for one in cases] for c in contenders}
    for buffers in calls.values():
        prepare, run = buffers[0]
        run(prepare())
    rotated = medians_ms(calls, args.seconds, device)
    warm = medians_ms({name: buffers[:1] for name, buffers in calls.items()}, args.seconds, device)
    return {
        **shape.as_dict(),
        "accepted_of_drafts": [round(accepted, 3), shape.drafts],
        "floor_mb": round(shape.floor_bytes / 1e6, 2),
        "copies": copies,
        "rotated_ms": rotated,
        "warm_ms": warm,
        "host_us": {c.name: host_us(calls[c.name][0]) for c in contenders} if device == "cuda" else None,
        # Last: on a CPU it changes how memory is allocated.
        "extra_bytes": {c.name: extra_bytes(calls[c.name][0], device) for c in contenders if c.name != "floor"},
        "target_bytes": case.target.nbytes,
    }


def show(cells: list[dict[str, Any]], device: str) -> Table:
    names = list(dict.fromkeys(name for cell in cells for name in cell["rotated_ms"]))
    table = Table("batch", "drafts", "vocabulary", "dtype", "filters", "accepted", *names, box=SIMPLE)
    table.title = f"{device}: ms rotated / warm, and extra memory in % of the target rows"
    for cell in cells:
        row = []
        for name in names:
            extra = cell["extra_bytes"].get(name)
            share = "" if extra is None else f"\n{100 * extra / cell['target_bytes']:.1f} %"
            row.append(f"{cell['rotated_ms'][name]:.2f} / {cell['warm_ms'][name]:.2f}{share}")
        accepted, drafts = cell["accepted_of_drafts"]
        first = [str(cell["batch"]), str(cell["drafts"]), str(cell["vocabulary"]), cell["dtype"], cell["filters"]]
        table.add_row(*first, f"{accepted:.2f} of {drafts}", *row)
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for axis, values in AXES.items():
        kind = int if isinstance(values[0], int) else str
        choices = None if kind is int else values
        parser.add_argument(f"--{axis}", nargs="+", type=kind, choices=choices, help=f"default: {values}")
    parser.add_argument("--only", action="store_true", help="every combination of the values given")
    parser.add_argument("--full", action="store_true", help="every combination of every axis")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--without", nargs="+", default=[], choices=[c.name for c in CONTENDERS], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each contender in each cell, twice")
    parser.add_argument("--noise", type=float, default=0.5, help="how far the head is from its target")
    parser.add_argument("--rotate-mib", type=int, default=640, help="the copies of a step take at least this much")
    parser.add_argument("--output", type=Path, help="default: bench/results/verify-DEVICE.json")
    parser.add_argument("--again", action="store_true", help="run cells again that the output holds")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("verify.py: --device cuda: PyTorch finds no usable GPU here; use --device cpu")
    args.output = args.output or Path(f"bench/results/verify-{args.device}.json")
    return args


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    reasons = {c.name: c.absent(args.device) for c in CONTENDERS}
    contenders = [c for c in CONTENDERS if reasons[c.name] is None and c.name not in args.without]
    for name, reason in reasons.items():
        if reason:
            print(f"{name}: not here ({reason})")
    known = [] if args.again or not args.output.exists() else json.loads(args.output.read_text("utf-8"))["cells"]
    cells = {Shape(**{axis: cell[axis] for axis in AXES}): cell for cell in known}
    wanted = shapes(args)
    for shape in track([s for s in wanted if s not in cells], "cells", disable=None):
        cells[shape] = measure(shape, contenders, args.device, args)
        result = {
            "question": "ms of one verify step; rotated: in buffers beyond the last-level cache, warm: in one buffer",
            "threads": torch.get_num_threads(),
            "noise": args.noise,
            "rotate_mib": args.rotate_mib,
            "cells": list(cells.values()),
            "provenance": provenance(),
        }
        write_atomically(args.output, json.dumps(result, indent=1) + "\n")
    Console(width=150).print(show([cells[shape] for shape in wanted], args.device))
    print(f"results: {args.output}")


if __name__ == "__main__":
    main()
