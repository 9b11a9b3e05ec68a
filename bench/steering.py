"""What does steering cost, and what does it do to acceptance?

Two real engines, compiled, in processes of their own: one with an SAE to steer with, one without any. Greedy tokens of
requests without a program must be the same in both. Then, in turns, so that both meet the same minutes:

    idle        the engine that could steer, no request that does, against the engine that cannot
    1, 8, 32    so many different programs in one batch, against the same engine idle
    reading     of every token eight features that are named, or the eight largest of all, against the same

Ratios are medians over pairs of rounds, with the 95 % interval of a bootstrap over pairs. Acceptance length against
strength: one feature added to every request, sampled at temperature 1, for as many strengths as are given.

    python bench/steering.py                       about twelve minutes on two cores
    python bench/steering.py --pairs 6 --output /tmp/steering.json
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _steering.engine import Engine
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from specdec.demo.prompts import cut_prompts, held_out_documents
from specdec.files import make_writable, replace_file
from specdec.provenance import provenance
from specdec.steering import load_sae

EXAMPLE = Path("examples/tiny-lm")
LENGTH = 24  # of prompts, tokens


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument("--sae", type=Path, default=EXAMPLE / "sae")
    parser.add_argument(
        "--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from: specdec demo"
    )
    parser.add_argument("--pairs", type=int, default=40, help="of rounds, for each figure")
    parser.add_argument("--tokens", type=int, default=64, help="that a request generates")
    parser.add_argument("--feature", type=int, default=0, help="the feature of the acceptance curve")
    parser.add_argument("--strengths", type=float, nargs="+", default=[-600, -300, -150, -75, 0, 75, 150, 300, 600])
    parser.add_argument(
        "--output", type=Path, default=Path("bench/results/steering.json"), help="a plot goes beside it"
    )
    return parser.parse_args()


def ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Median of second / first, and its interval."""
    ratios = [second / first for first, second in pairs]
    generator = random.Random(0)
    drawn = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(2000))
    return {
        "ratio": statistics.median(ratios), "low": drawn[50], "high": drawn[1949],
        "first": statistics.median(first for first, _ in pairs), "second": statistics.median(s for _, s in pairs),
        "pairs": len(pairs),
    }  # fmt: skip


def in_turns(first: Any, second: Any, pairs: int, what: str) -> list[tuple[float, float]]:
    """Speeds of both, in the order A B, B A, A B ...: drifts meet both sides alike."""
    found = []
    for number in track(range(pairs), what, console=Console(stderr=True), transient=True):
        speeds = {}
        for name, call in ((0, first), (1, second))[:: 1 if number % 2 == 0 else -1]:
            speeds[name] = call().speed
        found.append((speeds[0], speeds[1]))
    return found


def costs(args: argparse.Namespace, plain: Engine, able: Engine, prompts: list[list[int]], features: int) -> list[dict]:
    rows: list[dict] = []

    def batch(engine: Engine, count: int, programs: Sequence[Any]) -> Any:
        asked = [programs[i % len(programs)] for i in range(count)] if programs else [None] * count
        return lambda: engine.run(prompts[:count], asked, args.tokens, 0.0)

    eight = [(17 * i) % features for i in range(8)]
    for count in (1, 8, 32):
        ours, theirs = batch(able, count, [])(), batch(plain, count, [])()
        assert ours.tokens == theirs.tokens, "requests without a program must not notice"
        # Two processes: the difference looked for is small, and so each takes four times the turns.
        pairs = in_turns(batch(plain, count, []), batch(able, count, []), 4 * args.pairs, f"{count} requests, idle")
        rows.append({"requests": count, "programs": "idle, against none configured", **ratio(pairs)})
    for count, different in ((8, 1), (8, 8), (32, 1), (32, 8), (32, 32)):
        # Of a strength at which the text, and so what is accepted, stays as it is: the cost is that of computing.
        programs = [{"steer": [{"feature": (17 * i) % features, "add": 1e-4}]} for i in range(different)]
        pairs = in_turns(batch(able, count, []), batch(able, count, programs), args.pairs, f"{count}, {different}")
        rows.append({"requests": count, "programs": f"{different} different", **ratio(pairs)})
    for what, read in (("8 features read", {"features": eight}), ("8 largest read", {"top": 8})):
        pairs = in_turns(batch(able, 8, []), batch(able, 8, [{"read": read}]), args.pairs, f"8 requests, {what}")
        rows.append({"requests": 8, "programs": what, **ratio(pairs)})
    return rows


def acceptance(args: argparse.Namespace, able: Engine, prompts: list[list[int]]) -> list[dict[str, float]]:
    rows = []
    for strength in track(args.strengths, "strengths", console=Console(stderr=True), transient=True):
        program = {"steer": [{"feature": args.feature, "add": strength}]} if strength else None
        lengths = [able.run(prompts, [program] * len(prompts), args.tokens, 1.0).acceptance_length for _ in range(4)]
        spread = max(lengths) - min(lengths)
        rows.append({"strength": strength, "acceptance_length": statistics.mean(lengths), "spread": spread})
    return rows


def draw(rows: list[dict[str, float]], feature: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.2))
    strengths, lengths = ([row[key] for row in rows] for key in ("strength", "acceptance_length"))
    axes.errorbar(strengths, lengths, [row["spread"] / 2 for row in rows], marker="o", markersize=4, capsize=2)
    axes.set_xlabel(f"added to feature {feature}, in units of its decoder row")
    axes.set_ylabel("tokens per verify step")
    axes.set_ylim(bottom=1)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    args, console = parse(), Console(width=None if sys.stdout.isatty() else 140)
    make_writable(args.output.parent)
    cut = cut_prompts(held_out_documents(args.corpus), args.model, 32, LENGTH, LENGTH)
    prompts = [prompt.token_ids for prompt in cut]
    features = load_sae(args.sae).num_features
    steering = {"steering": {"saes": {"sae": str(args.sae)}, "max_programs": 32}}
    length = LENGTH + args.tokens + 8
    plain = Engine("plain", args.model, args.head, {}, 32, length)
    able = Engine("able", args.model, args.head, steering, 32, length)
    rows = costs(args, plain, able, prompts, features)
    table = Table("requests", "programs", "tokens/s without", "tokens/s with", "with / without [95 %]", box=SIMPLE)
    for row in rows:
        interval = f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        table.add_row(str(row["requests"]), row["programs"], f"{row['first']:.0f}", f"{row['second']:.0f}", interval)
    console.print(table)
    curve = acceptance(args, able, prompts)
    lengths = Table("strength", "tokens per verify step", "max - min of 4 runs", box=SIMPLE)
    for point in curve:
        lengths.add_row(f"{point['strength']:g}", f"{point['acceptance_length']:.3f}", f"{point['spread']:.3f}")
    console.print(lengths)
    draw(curve, args.feature, args.output.with_suffix(".png"))
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "costs": rows, "feature": args.feature, "acceptance": curve,
    }  # fmt: skip
    replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())
    console.print(f"written: {args.output}, {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
