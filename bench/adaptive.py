"""Does drafting that adapts make more tokens per second than any fixed number of drafts?

One real engine, compiled, of which the number of drafts is switched between loads: fixed 0, 1, 2, 3, 5; vLLM's own
table by batch size, filled with the fixed number that was best at each concurrency; and adaptive. All take turns, in
another order each round. Greedy tokens must be the same with each. Beside it an engine without a head, against fixed 0.

    uniform     all requests at temperature 1, at concurrency 1, 4, 16, 64
    mixed       greedy, nucleus, temperature 1 and hot requests together, at concurrency 1, 16, 64, 4 by turns

    python bench/adaptive.py                       about 25 minutes on two cores
    python bench/adaptive.py --rounds 3 --output /tmp/adaptive.json
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _adaptive.engine import Answer, Engine, Load
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from specdec.demo.prompts import cut_prompts, held_out_documents
from specdec.files import make_writable, replace_file
from specdec.provenance import provenance

EXAMPLE = Path("examples/tiny-lm")
LENGTH = 24  # of prompts, tokens
FIXED = (0, 1, 2, 3, 5)
CONCURRENCY = (1, 4, 16, 64)
PHASES = (1, 16, 64, 4)  # concurrency of the mixed load, by turns
KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}, {"temperature": 1.5}
)  # fmt: skip
Speeds = dict[str, list[float]]  # tokens per second by contestant, a round each


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument("--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from")
    parser.add_argument("--rounds", type=int, default=8, help="in each of which every contestant has its turn")
    parser.add_argument("--concurrency", type=int, nargs="*", default=CONCURRENCY, help="of the uniform loads")
    parser.add_argument("--no-mixed", action="store_true", help="leave the mixed load out")
    parser.add_argument("--tokens", type=int, default=64, help="that a request generates")
    parser.add_argument("--output", type=Path, default=Path("bench/results/adaptive.json"), help="a plot beside it")
    return parser.parse_args()


class Loads:
    """Made of prompts; a round has its own."""

    def __init__(self, prompts: list[list[int]], tokens: int) -> None:
        self._prompts, self._tokens = prompts, tokens

    def uniform(self, concurrency: int, turn: int, temperature: float = 1.0) -> list[Load]:
        count = {1: 8, 4: 36, 16: 96}.get(concurrency, 3 * concurrency)
        return [self._load(concurrency, count, turn, ({"temperature": temperature},))]

    def shapes(self, most: int) -> list[Load]:
        """Steps of 1, 2, 3 ... most tokens: vLLM on a CPU compiles something for each number when it first meets it."""
        longest = LENGTH + self._tokens
        found = []
        for total in range(1, most + 1):
            lengths = [longest] * (total // longest) + [total % longest] * (total % longest > 0)
            found.append(
                Load(len(lengths), [([7] * length, {"temperature": 0.0, "max_tokens": 1}) for length in lengths])
            )
        return found

    def mixed(self, turn: int) -> list[Load]:
        counts = {1: 4, 4: 16, 16: 48, 64: 128}
        return [self._load(concurrency, counts[concurrency], turn, KINDS) for concurrency in PHASES]

    def _load(self, concurrency: int, count: int, turn: int, kinds: Sequence[dict[str, Any]]) -> Load:
        at = [(turn * 37 + i) % len(self._prompts) for i in range(count)]
        params = [{**kinds[i % len(kinds)], "max_tokens": self._tokens} for i in range(count)]
        return Load(concurrency, [(self._prompts[i], one) for i, one in zip(at, params, strict=True)])


def in_turns(
    contestants: dict[str, Callable[[list[Load]], Answer]], loads: Callable[[int], list[Load]], rounds: int, what: str
) -> Speeds:
    """Every contestant in every round, in another order each."""
    names, speeds = list(contestants), {name: [] for name in contestants}
    order = random.Random(0)
    for turn in track(range(rounds), what, console=Console(stderr=True), transient=True):
        order.shuffle(names)
        for name in names:
            speeds[name].append(contestants[name](loads(turn)).speed)
    return speeds


def against(speeds: Speeds, name: str, other: str) -> dict[str, float]:
    """Median over rounds of name's speed / other's, and the 95 % interval of a bootstrap over rounds."""
    ratios = [one / two for one, two in zip(speeds[name], speeds[other], strict=True)]
    drawn = random.Random(0)
    medians = sorted(statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(2000))
    return {"ratio": statistics.median(ratios), "low": medians[50], "high": medians[1949]}


def best_fixed(speeds: Speeds) -> str:
    return max((str(k) for k in FIXED), key=lambda name: statistics.median(speeds[name]))


def table_of(best: dict[int, int]) -> list[tuple[int, int, int]]:
    """vLLM's table: ranges of batch sizes around the measured ones, with the number that was best there."""
    sizes = sorted(best)
    ends = [round((a * b) ** 0.5) for a, b in pairwise(sizes)]
    return [
        (low + 1, high, best[size]) for size, low, high in zip(sizes, [0, *ends], [*ends, max(sizes)], strict=True)
    ]  # fmt: skip


def measured(args: argparse.Namespace, engine: Engine, bare: Engine, loads: Loads) -> tuple[dict[str, Speeds], Any]:
    ways: dict[str, Any] = {**{str(k): k for k in FIXED}, "adaptive": "adaptive"}
    runs = {name: (lambda given, way=way: engine.run(way, given)) for name, way in ways.items()}
    for warm in (engine, bare):
        warm.run(0 if warm is engine else None, loads.shapes(max(CONCURRENCY) * (max(FIXED) + 1) + 2 * LENGTH))
    greedy = {name: run(loads.uniform(16, 0, temperature=0.0)).tokens for name, run in runs.items()}
    assert all(tokens == greedy["0"] for tokens in greedy.values()), "the number of drafts must not change the tokens"
    contestants = {**runs, "no head": lambda given: bare.run(None, given)}
    for c in args.concurrency:  # a server that has run a while
        runs["adaptive"](loads.uniform(c, 1))
    found: dict[str, Speeds] = {}
    for c in args.concurrency:
        load = f"uniform, {c}"
        found[load] = in_turns(contestants, lambda turn, c=c: loads.uniform(c, turn), args.rounds, load)
        print({name: round(statistics.median(speeds)) for name, speeds in found[load].items()}, file=sys.stderr)
    table = table_of({c: int(best_fixed(found[f"uniform, {c}"])) for c in args.concurrency})
    if args.no_mixed:
        return found, table
    contestants["table"] = lambda given: engine.run(table, given)
    runs["adaptive"](loads.mixed(0))
    found["mixed"] = in_turns(contestants, loads.mixed, args.rounds, "mixed")
    return found, table


def shown(found: dict[str, Speeds]) -> Table:
    names = ["no head", *map(str, FIXED), "table", "adaptive"]
    table = Table("load", *names, "adaptive / best fixed", "adaptive / table", "0 / no head", box=SIMPLE)
    for load, speeds in found.items():
        cells = [f"{statistics.median(speeds[name]):.0f}" if name in speeds else "" for name in names]
        ratios = [against(speeds, "adaptive", best_fixed(speeds))]
        ratios += [against(speeds, "adaptive", "table")] if "table" in speeds else [{}]
        ratios += [against(speeds, "0", "no head")]
        texts = [f"{r['ratio']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" if r else "" for r in ratios]
        table.add_row(load, *cells, *texts)
    return table


def draw(found: dict[str, Speeds], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.6))
    names = ["no head", *map(str, FIXED), "adaptive"]
    loads = [load for load in found if load.startswith("uniform")]
    for name in names:
        best = [statistics.median(found[load][name]) / statistics.median(found[load]["no head"]) for load in loads]
        wide = {"linewidth": 2.5, "color": "black", "zorder": 5} if name == "adaptive" else {"alpha": 0.8}
        axes.plot(
            range(len(loads)), best, marker="o", markersize=4, label=f"fixed {name}" if name.isdigit() else name, **wide
        )
    axes.set_xticks(range(len(loads)), [load.split()[-1] for load in loads])
    axes.set_xlabel("requests at once")
    axes.set_ylabel("tokens per second, against no head")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    args, console = parse(), Console(width=None if sys.stdout.isatty() else 200)
    make_writable(args.output.parent)
    cut = cut_prompts(held_out_documents(args.corpus), args.model, 128, LENGTH, LENGTH)
    loads = Loads([prompt.token_ids for prompt in cut], args.tokens)
    length = LENGTH + args.tokens + 8
    engine = Engine("adaptive", args.model, args.head, max(FIXED), max(CONCURRENCY), length)
    bare = Engine("bare", args.model, None, 0, max(CONCURRENCY), length)
    found, table = measured(args, engine, bare, loads)
    console.print(shown(found))
    console.print(f"vLLM's table: {table}")
    draw(found, args.output.with_suffix(".png"))
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "tokens_per_second": found, "table": table,
    }  # fmt: skip
    replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())
    console.print(f"written: {args.output}, {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
