"""What do the metrics cost, in tokens per second?

One real engine, compiled, in which counting is switched off and on between batches, so that nothing else differs: off
is what "metrics": {"enabled": false} makes at the start (no counters, no exact look at one step in 64, no times of
phases). Greedy tokens must be the same with both, the counters must stand still and move. Then pairs of batches, off
and on, on and off, in turns: requests with seeds, so that each batch has the same steps. Single batches vary by several
percent, pairs of neighbours by less.

The cost is the mean over pairs of (time on / time off - 1), without the highest and the lowest fifth of them; the bound
is the upper end of its 95 % interval, of a bootstrap over pairs. Exit status 1 where a bound is above --limit.

    python bench/metrics.py                      about five minutes on two cores
    python bench/metrics.py --seconds 20 --output /tmp/metrics.json
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from _metrics.engine import Engine
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from specdec.demo.prompts import cut_prompts, held_out_documents
from specdec.files import make_writable, replace_file
from specdec.provenance import provenance

EXAMPLE = Path("examples/tiny-lm")
LENGTH = 24  # of prompts, tokens


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument(
        "--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from: specdec demo"
    )
    parser.add_argument("--seconds", type=float, default=80, help="for each number of requests")
    parser.add_argument("--pairs", type=int, default=40, help="at least, whatever they take")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="that a request generates")
    parser.add_argument("--limit", type=float, default=1.0, help="of the bound, percent")
    parser.add_argument("--output", type=Path, default=Path("bench/results/metrics.json"))
    return parser.parse_args()


def check_equal(engine: Engine, prompts: list[list[int]], tokens: int) -> None:
    """RuntimeError: counting changes tokens, or does not count, or counts where it should not."""
    off, on = (engine.run(prompts, tokens, 0.0, count) for count in (False, True))
    if off.tokens != on.tokens:
        raise RuntimeError("greedy tokens differ with and without counting")
    if off.counted or not on.counted:
        raise RuntimeError(f"steps counted: {off.counted} while it is off, {on.counted} while it is on")


def pairs_of(engine: Engine, prompts: list[list[int]], args: argparse.Namespace) -> list[tuple[float, float]]:
    """Tokens per second without and with, in turns."""
    found: list[tuple[float, float]] = []
    began = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{len(prompts)} requests", total=args.seconds)
        while (passed := time.monotonic() - began) < args.seconds or len(found) < args.pairs:
            speeds = {}
            for count in (False, True) if len(found) % 2 == 0 else (True, False):
                speeds[count] = engine.run(prompts, args.tokens, 1.0, count).speed
            found.append((speeds[False], speeds[True]))
            progress.update(task, completed=passed)
    return found


def middle(values: list[float]) -> float:
    """Their mean, without the highest and the lowest fifth."""
    fifth = len(values) // 5
    return statistics.fmean(sorted(values)[fifth : len(values) - fifth])


def cost_of(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Percent, with its interval; speeds are medians."""
    costs = [100 * (off / on - 1) for off, on in pairs]
    generator = random.Random(0)
    drawn = sorted(middle(generator.choices(costs, k=len(costs))) for _ in range(2000))
    return {
        "cost": middle(costs), "low": drawn[50], "high": drawn[1949], "pairs": len(pairs),
        "off": statistics.median(off for off, _ in pairs), "on": statistics.median(on for _, on in pairs),
        "spread": statistics.stdev(costs),
    }  # fmt: skip


def main() -> None:
    args, console = parse(), Console(width=None if sys.stdout.isatty() else 140)
    make_writable(args.output.parent)
    most = max(args.requests)
    cut = cut_prompts(held_out_documents(args.corpus), args.model, most, LENGTH, LENGTH)
    prompts = [prompt.token_ids for prompt in cut]
    engine = Engine(args.model, args.head, most, LENGTH + args.tokens + 8)
    rows: list[dict[str, Any]] = []
    for count in args.requests:
        check_equal(engine, prompts[:count], args.tokens)
        rows.append({"requests": count, **cost_of(pairs_of(engine, prompts[:count], args))})
    table = Table("requests", "tokens/s off", "tokens/s on", "cost [95 %]", "pairs", "a pair's spread", box=SIMPLE)
    for row in rows:
        cost = f"{row['cost']:+.2f} % [{row['low']:+.2f}, {row['high']:+.2f}]"
        speeds = (f"{row[name]:.0f}" for name in ("off", "on"))
        table.add_row(str(row["requests"]), *speeds, cost, str(row["pairs"]), f"{row['spread']:.1f} %")
    console.print(table)
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "limit": args.limit, "costs": rows,
    }  # fmt: skip
    replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())
    console.print(f"written: {args.output}")
    above = [row["requests"] for row in rows if row["high"] > args.limit]
    if above:
        console.print(f"[red]✗[/] the bound is above {args.limit:g} % with {', '.join(map(str, above))} requests")
        sys.exit(1)


if __name__ == "__main__":
    main()
