"""Do losses straight from hidden states and LM-head weight save memory without costing time, beside the eager ones?

Eager makes the logits of all tokens and calls specdec.training.losses; chunked, and on a GPU triton, are
specdec.training.fused. All must give the same values and gradients before they take turns: forward and backward, to the
gradient of the draft's hidden states. Extra memory is the most that one such call holds beyond its inputs.

    python bench/losses.py                                      both sizes, three losses: half an hour on two cores
    python bench/losses.py --sizes 512x32000 --losses tv        less
    python bench/losses.py --sizes 8192x151936 --device cuda

Cells that --output holds already are not run again.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _verify.timing import Call, extra_bytes, medians_ms
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from specdec.demo.report import write_atomically
from specdec.provenance import provenance
from specdec.training.fused import FUSED, step_losses
from specdec.training.losses import STEP_LOSSES

STEPS = 4  # of a chain: what e2e-tv multiplies over
# Of the gradient, in its norm. float32: sums in another order, and tokens where q and p differ by a rounding count as
# q <= p on one side alone. bfloat16: slopes are rounded to it, in eager once more by the hidden states' type.
GRADIENT_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}


class Cell(NamedTuple):
    loss: str
    dtype: str
    tokens: int
    vocabulary: int
    hidden: int

    @property
    def logits_bytes(self) -> int:
        """Of one float32 matrix of all tokens' logits."""
        return 4 * self.tokens * self.vocabulary


class Inputs(NamedTuple):
    """draft, target [tokens / STEPS, STEPS, hidden]; weight [vocabulary, hidden], of both sides."""

    draft: Tensor
    target: Tensor
    weight: Tensor


def make_inputs(cell: Cell, device: str) -> Inputs:
    """Logits of standard deviation 3 on the target's side, and a draft that is near it."""
    generator = torch.Generator().manual_seed(0)
    shape = (cell.tokens // STEPS, STEPS, cell.hidden)
    weight = torch.randn(cell.vocabulary, cell.hidden, generator=generator) * (3 / cell.hidden**0.5)
    target = torch.randn(shape, generator=generator)
    draft = target + 0.3 * torch.randn(shape, generator=generator)
    return Inputs(*(x.to(device, getattr(torch, cell.dtype)) for x in (draft, target, weight)))


def loss_of(cell: Cell, inputs: Inputs, contender: str) -> Callable[[Tensor], Tensor]:
    """The loss of each token, from the draft's hidden states."""
    if contender == "eager":
        labels = torch.zeros(inputs.draft.shape[:-1], dtype=torch.int64, device=inputs.draft.device)
        return lambda draft: STEP_LOSSES[cell.loss](
            F.linear(draft, inputs.weight), F.linear(inputs.target, inputs.weight), labels
        )
    return lambda draft: step_losses(cell.loss, draft, inputs.target, inputs.weight, backend=contender)[0]


def forward_backward(loss: Callable[[Tensor], Tensor], draft: Tensor) -> tuple[Tensor, Tensor]:
    """The losses, and the gradient of their mean."""
    draft = draft.clone().requires_grad_()
    value = loss(draft)
    (gradient,) = torch.autograd.grad(value.mean(), draft)
    return value.detach(), gradient


def check_equal(cell: Cell, inputs: Inputs, contenders: list[str]) -> dict[str, float]:
    """The largest difference in a value for each contender. RuntimeError where one is not eager's."""
    known, slope = forward_backward(loss_of(cell, inputs, "eager"), inputs.draft)
    differences = {}
    for name in contenders[1:]:
        value, gradient = forward_backward(loss_of(cell, inputs, name), inputs.draft)
        differences[name] = (value - known).abs().max().item()
        off = ((gradient - slope).float().norm() / slope.float().norm()).item()
        if not torch.allclose(value, known, rtol=1e-4, atol=1e-5) or not off <= GRADIENT_TOLERANCE[cell.dtype]:
            raise RuntimeError(
                f"{name} differs from eager at {cell}: values by {differences[name]}, gradient by {off} of its norm"
            )
    return differences


def measure(cell: Cell, device: str, repeats: int) -> dict[str, Any]:
    contenders = ["eager", "chunked", *(["triton"] if device == "cuda" else [])]
    need = 8 * cell.logits_bytes  # eager KL was seen to hold 7.4
    if device == "cpu" and need > (free := available_bytes()):
        raise SystemExit(
            f"eager at {cell.tokens} x {cell.vocabulary} needs about {need / 2**30:.1f} GiB, and {free / 2**30:.1f} "
            "are free: give fewer tokens with --sizes"
        )
    inputs = make_inputs(cell, device)
    differences = check_equal(cell, inputs, contenders)
    calls = {name: make_call(loss_of(cell, inputs, name), inputs.draft) for name in contenders}
    wall, cpu = times_ms(calls, device, repeats)
    return {
        **cell._asdict(),
        "ms": wall,
        "cpu_ms": cpu,
        # Last: on a CPU it changes how memory is allocated.
        "extra_bytes": {name: extra_bytes(calls[name], device) for name in contenders},
        "logits_bytes": cell.logits_bytes,
        "largest_difference": differences,
        "threads": torch.get_num_threads(),
        "provenance": provenance(),
    }


def make_call(loss: Callable[[Tensor], Tensor], draft: Tensor) -> Call:
    return lambda: None, lambda _: forward_backward(loss, draft)


def times_ms(calls: dict[str, Call], device: str, repeats: int) -> tuple[dict[str, float], dict[str, float] | None]:
    """Medians of the contenders, which take turns: wall time, and on a CPU the processor time of all threads, which
    other processes on the machine disturb less. On a GPU the wall time is the device's."""
    if device == "cuda":
        return medians_ms({name: [call] for name, call in calls.items()}, 0.0, device, at_least=repeats), None
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, (_, run) in calls.items():
            began = time.perf_counter(), time.process_time()
            run(None)
            times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    wall, cpu = ({name: 1000 * statistics.median(t[i] for t in times[name]) for name in calls} for i in (0, 1))
    return wall, cpu


def available_bytes() -> int:
    with open("/proc/meminfo") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))


def show(cells: list[dict[str, Any]], device: str) -> Table:
    names = list(dict.fromkeys(name for cell in cells for name in cell["ms"]))
    whats = ("ms", "CPU ms", "MiB") if device == "cpu" else ("ms", "MiB")
    columns = [f"{name}\n{what}" for name in names for what in whats]
    table = Table("loss", "dtype", "tokens", "vocabulary", *columns, box=SIMPLE)
    table.title = f"{device}: forward and backward; extra memory; in brackets the share of eager's"
    for cell in cells:
        row = [cell["loss"], cell["dtype"], str(cell["tokens"]), str(cell["vocabulary"])]
        for name in names:
            row += [share(cell["ms"], name, 1)]
            row += [share(cell["cpu_ms"], name, 1)] if device == "cpu" else []
            row += [share(cell["extra_bytes"], name, 2**20)]
        table.add_row(*row)
    return table


def share(values: dict[str, float | None], name: str, unit: int) -> str:
    value, base = values.get(name), values.get("eager")
    if value is None:
        return ""
    return f"{value / unit:,.0f}" + (f" ({value / base:.3f})" if base and name != "eager" else "")


def wanted_cells(args: argparse.Namespace) -> Iterator[Cell]:
    for size, dtype, loss in product(args.sizes, args.dtypes, args.losses):
        tokens, vocabulary = (int(part) for part in size.split("x"))
        yield Cell(loss, dtype, tokens, vocabulary, args.hidden)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512x32000", "4096x151936"], metavar="TOKENSxVOCABULARY")
    parser.add_argument("--losses", nargs="+", default=["tv", "e2e-tv", "kl"], choices=list(FUSED))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=list(GRADIENT_TOLERANCE))
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument(
        "--repeats", type=int, default=3, help="of which the median is given, after one to compare results"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="default: bench/results/losses.json, on a GPU losses-cuda.json")
    parser.add_argument("--again", action="store_true", help="run cells again that the output holds")
    args = parser.parse_args()
    name = "losses.json" if args.device == "cpu" else "losses-cuda.json"
    args.output = args.output or Path("bench/results") / name
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    known = json.loads(args.output.read_text("utf-8"))["cells"] if args.output.exists() else []
    cells = {Cell(*(cell[field] for field in Cell._fields)): cell for cell in known}
    wanted = list(wanted_cells(args))
    for cell in wanted:
        if cell in cells and not args.again:
            continue
        print(f"{cell} ...", file=sys.stderr, flush=True)
        cells[cell] = measure(cell, args.device, args.repeats)
        result = {
            "question": "ms and extra bytes of a loss from hidden states to their gradient",
            "device": args.device,
            "cells": list(cells.values()),
            "provenance": provenance(),
        }
        write_atomically(args.output, json.dumps(result, indent=1) + "\n")
    Console(width=150).print(show([cells[cell] for cell in wanted], args.device))
    print(f"results: {args.output}")


if __name__ == "__main__":
    main()
