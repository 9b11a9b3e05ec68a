"""Does drafting that adapts make more tokens per second than any fixed number of drafts?

One real engine, compiled, of which the number of drafts is switched between loads: fixed 0, 1, 2, 3, 5; vLLM's own
table by batch size; and adaptive. All take turns, in another order each round. Greedy tokens must be the same with
each.

    uniform     all requests at temperature 1, at concurrency 1, 4, 16, 64, 256
    mixed       by turns 1 request at temperature 1, 256 at temperature 1, 16 that sample in four ways, 256 greedy ones,
                4 by nucleus. The table has at each concurrency the number that was best there in two rounds before,
                of this very load

The best fixed number, against which a round is held, is the one that is best in the other rounds: the best of all
rounds would be partly the luckiest. Then the gap between fixed 0 and a server without a head: each is started anew a
few times, since the speed of a process depends on where its memory happens to lie.

    python bench/adaptive.py                       about 40 minutes on two cores
    python bench/adaptive.py --rounds 3 --output /tmp/adaptive.json
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
CONCURRENCY = (1, 4, 16, 64, 256)
GREEDY, NUCLEUS, PLAIN, HOT = (
    {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}, {"temperature": 1.5}
)  # fmt: skip
Phase = tuple[int, int, tuple[dict[str, Any], ...]]  # concurrency, requests, ways of sampling
UNIFORM: tuple[Phase, ...] = tuple((c, n, (PLAIN,)) for c, n in zip(CONCURRENCY, (8, 36, 96, 192, 320), strict=True))
MIXED: tuple[Phase, ...] = (
    (1, 6, (PLAIN,)), (256, 256, (PLAIN,)), (16, 96, (GREEDY, NUCLEUS, PLAIN, HOT)), (256, 256, (GREEDY,)),
    (4, 24, (NUCLEUS,)),
)  # fmt: skip
SHAPES = 64 * (max(FIXED) + 1) + 2 * LENGTH  # numbers of tokens in a step that are met before anything is measured
STARTS = 3  # of a server with a head and one without, for the gap between them
Speeds = dict[str, list[float]]  # tokens per second by contestant, a round each


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument("--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from")
    parser.add_argument("--rounds", type=int, default=8, help="in each of which every contestant has its turn")
    parser.add_argument(
        "--concurrency", type=int, nargs="*", default=CONCURRENCY, choices=CONCURRENCY, help="of the uniform loads"
    )
    parser.add_argument("--no-mixed", action="store_true", help="leave the mixed load out")
    parser.add_argument("--tokens", type=int, default=64, help="that a request generates")
    parser.add_argument("--output", type=Path, default=Path("bench/results/adaptive.json"), help="a plot beside it")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds {args.rounds}: at least 2, since a round is held against what is best in the others")
    return args


class Loads:
    """Made of prompts; a round has its own."""

    def __init__(self, prompts: list[list[int]], tokens: int) -> None:
        self._prompts, self._tokens = prompts, tokens

    def of(self, phases: Sequence[Phase], turn: int) -> list[Load]:
        return [self._load(*phase, turn) for phase in phases]

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

    def _load(self, concurrency: int, count: int, kinds: Sequence[dict[str, Any]], turn: int) -> Load:
        at = [(turn * 37 + i) % len(self._prompts) for i in range(count)]
        params = [{**kinds[i % len(kinds)], "max_tokens": self._tokens} for i in range(count)]
        return Load(concurrency, [(self._prompts[i], one) for i, one in zip(at, params, strict=True)])


def in_turns(
    contestants: Mapping[str, Callable[[list[Load]], Answer]],
    loads: Callable[[int], list[Load]],
    rounds: int,
    what: str,
) -> Speeds:
    """Every contestant in every round, in another order each."""
    names = list(contestants)
    speeds: Speeds = {name: [] for name in names}
    order = random.Random(0)
    for turn in track(range(rounds), what, console=Console(stderr=True), transient=True):
        order.shuffle(names)
        for name in names:
            speeds[name].append(contestants[name](loads(turn)).speed)
    return speeds


def best_fixed(speeds: Speeds, without: int | None = None) -> str:
    """By the median over all rounds, or all but one."""

    def speed(name: str) -> float:
        return statistics.median(speed for turn, speed in enumerate(speeds[name]) if turn != without)

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


def tuned(runs: dict[str, Any], loads: Loads, rounds: int = 2) -> list[tuple[int, int, int]]:
    """vLLM's table with the fixed numbers that are best in the mixed load, at each concurrency."""
    best, fixed = {}, {name: runs[name] for name in map(str, FIXED)}
    for concurrency in sorted({phase[0] for phase in MIXED}):
        phases = [phase for phase in MIXED if phase[0] == concurrency]
        speeds = in_turns(fixed, partial(loads.of, phases), rounds, f"table, {concurrency}")
        best[concurrency] = int(best_fixed(speeds))
    return table_of(best)


def measured(
    args: argparse.Namespace, phases: Sequence[Phase], engine: Engine, bare: Engine, loads: Loads
) -> tuple[dict[str, Speeds], Any]:
    ways: dict[str, Any] = {**{str(k): k for k in FIXED}, "adaptive": "adaptive"}
    runs = {name: partial(engine.run, way) for name, way in ways.items()}
    engine.run(0, loads.shapes(SHAPES))
    bare.run(None, loads.shapes(SHAPES))
    greedy = {name: run(loads.of([(16, 96, (GREEDY,))], 0)).tokens for name, run in runs.items()}
    assert all(tokens == greedy["0"] for tokens in greedy.values()), "the number of drafts must not change the tokens"
    contestants: dict[str, Any] = {**runs, "no head": partial(bare.run, None)}
    runs["adaptive"](loads.of(phases, 1))  # a server that has run a while
    found: dict[str, Speeds] = {}
    for phase in phases:
        load = f"uniform, {phase[0]}"
        found[load] = in_turns(contestants, partial(loads.of, [phase]), args.rounds, load)
        print({name: round(statistics.median(speeds)) for name, speeds in found[load].items()}, file=sys.stderr)
    if args.no_mixed:
        return found, None
    table = tuned(runs, loads)
    contestants["table"] = partial(engine.run, table)
    runs["adaptive"](loads.of(MIXED, 0))
    found["mixed"] = in_turns(contestants, partial(loads.of, MIXED), args.rounds, "mixed")
    return found, table


def gap(phases: Sequence[Phase], loads: Loads, start: Callable[[], tuple[Engine, Engine]]) -> dict[str, list[float]]:
    """By uniform load: fixed 0 against no head, one number for each start of both."""
    found: dict[str, list[float]] = {}
    for _ in range(STARTS):
        engine, bare = start()
        for phase in phases:
            contestants = {"0": partial(engine.run, 0), "no head": partial(bare.run, None)}
            speeds = in_turns(contestants, partial(loads.of, [phase]), 3, f"0 against no head, {phase[0]}")
            later = {name: values[1:] for name, values in speeds.items()}  # the first one warms up
            found.setdefault(f"uniform, {phase[0]}", []).append(against(later, "0", "no head")["ratio"])
        engine.close()
        bare.close()
    return found


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
    loads = Loads([prompt.token_ids for prompt in cut], args.tokens)
    length = LENGTH + args.tokens + 8

    def start() -> tuple[Engine, Engine]:
        engine = Engine("adaptive", args.model, args.head, max(FIXED), max(CONCURRENCY), length)
        return engine, Engine("bare", args.model, None, 0, max(CONCURRENCY), length)

    engine, bare = start()
    phases = [phase for phase in UNIFORM if phase[0] in args.concurrency]
    found, table = measured(args, phases, engine, bare, loads)
    engine.close()
    bare.close()
    draw(found, args.output.with_suffix(".png"))
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "tokens_per_second": found, "table": table,
    }  # fmt: skip

    def write() -> None:
        replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())

    write()  # what follows takes minutes more
    content["fixed_0_against_no_head"] = gaps = gap(phases, loads, start)
    write()
    console.print(shown(found, gaps))
    console.print(f"vLLM's table: {table}")
    console.print(f"written: {args.output}, {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    main()
