"""Does drafting that adapts make more tokens per second than any fixed number of drafts?

One real engine, compiled, kept at a number of requests in flight, a new one for each that ends; the number of drafts is
switched while they run: fixed 0, 1, 2, 3, 5; vLLM's own table by batch size; and adaptive. All take turns of about a
second, in another order each round: the speed of a machine that is shared changes by a third from one minute to the
next, so only neighbours in time can be compared. Greedy tokens must be the same with each.

    uniform     all requests at temperature 1, at concurrency 1, 4, 16, 64, 256
    mixed       by turns 1 request at temperature 1, 256 at temperature 1.5, 16 that sample in four ways, 256 greedy
                ones, 4 by nucleus; in a round each for all in turn. A round's speed is that of so many tokens in each,
                one behind the other. The table has at each concurrency the number that was best there in a few rounds
                before, of this very load

Ratios are medians over rounds, of what was measured in the same round. The best fixed number, against which a round is
held, is the one that is best in the other rounds: the best of all rounds would be partly the luckiest. Then the gap
between a server that is pinned to no drafts by its flag and one without a head: both are started anew a few times,
since the speed of a process depends on where its memory happens to lie.

    python bench/adaptive.py                       about 40 minutes on two cores
    python bench/adaptive.py --rounds 6 --mixed-rounds 4 --output /tmp/adaptive.json
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _adaptive.engine import Engine, Load, Request
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
CONCURRENCY = (1, 4, 16, 64, 256)
GREEDY, NUCLEUS, PLAIN, HOT = (
    {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}, {"temperature": 1.5}
)  # fmt: skip
Phase = tuple[int, tuple[dict[str, Any], ...]]  # concurrency, ways of sampling
UNIFORM: dict[int, Phase] = {concurrency: (concurrency, (PLAIN,)) for concurrency in CONCURRENCY}
MIXED: tuple[tuple[Phase, int], ...] = (  # each with so many tokens of a round
    ((1, (PLAIN,)), 400), ((256, (HOT,)), 16000), ((16, (GREEDY, NUCLEUS, PLAIN, HOT)), 6000),
    ((256, (GREEDY,)), 16000), ((4, (NUCLEUS,)), 1500),
)  # fmt: skip
SHAPES = 64 * (max(FIXED) + 1) + 2 * LENGTH  # numbers of tokens in a step that are met before anything is measured
TUNING = 4  # rounds from which vLLM's table is filled
WARM = 8  # turns of adaptive drafting before a load is measured
STARTS = 2  # of a server with a head and one without, for the gap between them
Speeds = dict[str, list[float]]  # tokens per second by contestant, a round each


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument("--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from")
    parser.add_argument("--rounds", type=int, default=20, help="in each of which every contestant has its turn")
    parser.add_argument("--mixed-rounds", type=int, default=12, help="of the mixed load; 0 leaves it out")
    parser.add_argument(
        "--concurrency", type=int, nargs="*", default=CONCURRENCY, choices=CONCURRENCY, help="of the uniform loads"
    )
    parser.add_argument("--tokens", type=int, default=64, help="that a request generates")
    parser.add_argument("--output", type=Path, default=Path("bench/results/adaptive.json"), help="a plot beside it")
    args = parser.parse_args()
    for name, rounds in (("--rounds", args.rounds), ("--mixed-rounds", args.mixed_rounds or 2)):
        if rounds < 2:
            parser.error(f"{name} {rounds}: at least 2, since a round is held against what is best in the others")
    return args


def shapes(most: int, longest: int) -> list[list[Request]]:
    """Steps of 1, 2, 3 ... most tokens: vLLM on a CPU compiles something for each number when it first meets it."""
    found = []
    for total in range(1, most + 1):
        lengths = [longest] * (total // longest) + [total % longest] * (total % longest > 0)
        found.append([([7] * length, {"temperature": 0.0, "max_tokens": 1}) for length in lengths])
    return found


def load_of(phase: Phase, prompts: list[list[int]], args: argparse.Namespace) -> Load:
    concurrency, kinds = phase
    return Load(concurrency, kinds, prompts, args.tokens)


def in_turns(
    contestants: Mapping[str, tuple[Engine, Any]], loads: Sequence[Load], rounds: int, what: str
) -> list[Speeds]:
    """Of each load, which are kept by turns: every contestant in every round, in another order each. contestants:
    engine and way of drafting.
    """
    names = list(contestants)
    found: list[Speeds] = [{name: [] for name in names} for _ in loads]
    order = random.Random(0)
    for _ in track(range(rounds), what, console=Console(stderr=True), transient=True):
        for load, speeds in zip(loads, found, strict=True):
            for engine in {id(engine): engine for engine, _ in contestants.values()}.values():
                engine.keep(load)
            order.shuffle(names)
            for name in names:
                engine, way = contestants[name]
                speeds[name].append(engine.turn(way))
    return found


def together(parts: Sequence[Speeds], tokens: Sequence[float]) -> Speeds:
    """The speed of a round that has so many tokens of each load."""
    return {
        name: [
            sum(tokens) / sum(count / speed for count, speed in zip(tokens, speeds, strict=True))
            for speeds in zip(*(part[name] for part in parts), strict=True)
        ]
        for name in parts[0]
    }


def best_fixed(speeds: Speeds, without: int | None = None) -> str:
    """By the median over all rounds, or all but one, of the speed against that of all fixed numbers in the round."""
    fixed = [speeds[str(k)] for k in FIXED]

    def speed(name: str) -> float:
        return statistics.median(
            speed / statistics.fmean(others)
            for turn, (speed, *others) in enumerate(zip(speeds[name], *fixed, strict=True))
            if turn != without
        )

    return max(map(str, FIXED), key=speed)


def against(speeds: Speeds, name: str, other: str) -> dict[str, float]:
    """Median over rounds of name's speed / other's, and the 95 % interval of a bootstrap over rounds. other "best": the
    fixed number that is best in the other rounds.
    """
    others = [best_fixed(speeds, turn) if other == "best" else other for turn in range(len(speeds[name]))]
    ratios = [speeds[name][turn] / speeds[other][turn] for turn, other in enumerate(others)]
    drawn = random.Random(0)
    medians = sorted(statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(2000))
    return {"ratio": statistics.median(ratios), "low": medians[50], "high": medians[1949]}


def table_of(best: dict[int, int]) -> list[tuple[int, int, int]]:
    """vLLM's table: ranges of batch sizes around the measured ones, with the number that was best there."""
    sizes = sorted(best)
    ends = [round((a * b) ** 0.5) for a, b in pairwise(sizes)]
    return [
        (low + 1, high, best[size]) for size, low, high in zip(sizes, [0, *ends], [*ends, max(sizes)], strict=True)
    ]  # fmt: skip


class Bench:
    """What is measured, of engines that are there."""

    def __init__(self, args: argparse.Namespace, prompts: list[list[int]], engine: Engine, bare: Engine) -> None:
        self._args, self._prompts, self._engine = args, prompts, engine
        self._fixed: dict[str, tuple[Engine, Any]] = {str(k): (engine, k) for k in FIXED}
        self._none = {"no head": (bare, None)}

    def _load(self, phase: Phase) -> Load:
        return load_of(phase, self._prompts, self._args)

    def check_equal(self) -> None:
        """RuntimeError: the number of drafts changes greedy tokens."""
        requests = [(ids, {"temperature": 0.0, "max_tokens": self._args.tokens}) for ids in self._prompts[:16]]
        plain = self._engine.complete(0, requests)
        for way in (*FIXED, "adaptive"):
            if self._engine.complete(way, requests) != plain:
                raise RuntimeError(f"greedy tokens differ with {way} drafts and none")

    def uniform(self) -> dict[str, Speeds]:
        contestants = {**self._fixed, "adaptive": (self._engine, "adaptive"), **self._none}
        found: dict[str, Speeds] = {}
        for concurrency in self._args.concurrency:
            load, name = self._load(UNIFORM[concurrency]), f"uniform, {concurrency}"
            self._warm(load)
            (found[name],) = in_turns(contestants, [load], self._args.rounds, name)
            print({name: round(statistics.median(speeds)) for name, speeds in found[name].items()}, file=sys.stderr)
        return found

    def mixed(self) -> tuple[Speeds, dict[str, Speeds], list[tuple[int, int, int]]]:
        """As a whole, by its loads, and vLLM's table."""
        loads, tokens = [self._load(phase) for phase, _ in MIXED], [count for _, count in MIXED]
        tuning = in_turns(self._fixed, loads, TUNING, "table")
        best = {}
        for concurrency in sorted({load.concurrency for load in loads}):
            mine = [i for i, load in enumerate(loads) if load.concurrency == concurrency]
            best[concurrency] = int(best_fixed(together([tuning[i] for i in mine], [tokens[i] for i in mine])))
        table = table_of(best)
        for load in loads:
            self._warm(load)
        contestants = {
            **self._fixed, "table": (self._engine, table), "adaptive": (self._engine, "adaptive"), **self._none
        }  # fmt: skip
        parts = in_turns(contestants, loads, self._args.mixed_rounds, "mixed")
        named = {f"{load.concurrency}, {list(load.kinds)}": part for load, part in zip(loads, parts, strict=True)}
        return together(parts, tokens), named, table

    def _warm(self, load: Load) -> None:
        """A server that has run a while under such a load."""
        self._engine.keep(load)
        for _ in range(WARM):
            self._engine.turn("adaptive")


def gaps_of(
    pinned: Engine, bare: Engine, prompts: list[list[int]], args: argparse.Namespace
) -> Iterator[tuple[str, float]]:
    """By uniform load: no drafts against no head."""
    for concurrency in args.concurrency:
        load, name = load_of(UNIFORM[concurrency], prompts, args), f"uniform, {concurrency}"
        contestants = {"0": (pinned, None), "no head": (bare, None)}
        (speeds,) = in_turns(contestants, [load], args.rounds, f"gap, {name}")
        ratio = against(speeds, "0", "no head")["ratio"]
        print(f"0 against no head, {name}: {ratio:.3f}", file=sys.stderr)
        yield name, ratio


def shown(found: dict[str, Speeds], gaps: dict[str, list[float]]) -> Table:
    names = ["no head", *map(str, FIXED), "table", "adaptive"]
    table = Table("load", *names, "adaptive / best fixed", "adaptive / table", "0 / no head, each start", box=SIMPLE)
    for load, speeds in found.items():
        cells = [f"{statistics.median(speeds[name]):.0f}" if name in speeds else "" for name in names]
        ratios = [against(speeds, "adaptive", "best")]
        ratios += [against(speeds, "adaptive", "table")] if "table" in speeds else [{}]
        texts = [f"{r['ratio']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" if r else "" for r in ratios]
        table.add_row(load, *cells, *texts, " ".join(f"{ratio:.2f}" for ratio in gaps.get(load, [])))
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
    prompts = [prompt.token_ids for prompt in cut]
    length = LENGTH + args.tokens + 8

    @contextmanager
    def started(count: str | int) -> Iterator[tuple[Engine, Engine]]:
        engine = Engine(args.model, args.head, max(FIXED), max(CONCURRENCY), length, count)
        bare = Engine(args.model, None, 0, max(CONCURRENCY), length)
        for one in (engine, bare):
            for requests in shapes(SHAPES, LENGTH + args.tokens):
                one.complete(None, requests)
        yield engine, bare
        engine.close()
        bare.close()

    content: dict[str, Any] = {"question": __doc__.splitlines()[0], "command": " ".join(sys.argv)}

    def write() -> None:  # what follows takes minutes more
        content["provenance"] = provenance()
        replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())

    with started("adaptive") as engines:
        bench = Bench(args, prompts, *engines)
        bench.check_equal()
        content["tokens_per_second"] = found = bench.uniform()
        draw(found, args.output.with_suffix(".png"))
        write()
        if args.mixed_rounds:
            found["mixed"], content["mixed_by_load"], content["table"] = bench.mixed()
            write()
    gaps: dict[str, list[float]] = {}
    content["fixed_0_against_no_head"] = gaps
    for _ in range(STARTS):
        with started(0) as engines:
            for load, ratio in gaps_of(*engines, prompts, args):
                gaps.setdefault(load, []).append(ratio)
        write()
    console.print(shown(found, gaps))
    console.print(f"vLLM's table: {content.get('table')}")
    console.print(f"written: {args.output}, {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
