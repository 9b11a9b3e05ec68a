"""Steer the tiny model by one feature, up and down, and see it three times: in the text, in the feature's own reading,
and in how many drafts are accepted.

    python examples/steer.py                                   about half a minute on two cores

Feature 1449 of the SAE in examples/tiny-lm/sae is active on words in capitals (`specdec sae features` lists them all).
At each strength a real engine, with speculation on, writes continuations of one prompt under

    {"steer": [{"feature": 1449, "add": STRENGTH}], "on": "generated", "read": {"features": [1449]}, "figures": true}

A strength is a length in the residual stream, which has one of about 650 at that layer; at 0 nothing is steered. For
another feature say what to count, here import lines:

    python examples/steer.py --feature 643 --count '(?m)^ *(import|from) ' --plot /tmp/imports.png
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from specdec.engines.command import WORKER, cpu_environment, speculative_config
from specdec.files import replace_file

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TINY = Path(__file__).parent / "tiny-lm"
ENGINE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
PROMPT = "import os\n\n\ndef load(path):\n    "
COLORS = ("#1f77b4", "#d95f02", "#555555")
console = Console(highlight=False)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feature", type=int, default=1449, help="of the SAE (default: %(default)s, capitals)")
    parser.add_argument(
        "--count", default="[A-Z]", metavar="REGEX", help="what the feature should bring about (default: %(default)s)"
    )
    strengths = [-300, -150, -75, 0, 75, 150, 300]
    parser.add_argument("--strengths", type=float, nargs="+", default=strengths, help="(default: %(default)s)")
    parser.add_argument("--prompt", default=PROMPT, help="(default: an import and the first line of a function)")
    parser.add_argument("--samples", type=int, default=32, help="texts at each strength (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each text (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the texts (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=TINY / "steering.png", help="PNG to write (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers and all texts to this file too")
    return parser.parse_args()


def start(args: argparse.Namespace) -> Any:
    """The engine, in this process, with the head that drafts and the SAE that requests may steer by and read."""
    os.environ.update({name: value for name, value in ENGINE.items() if name not in os.environ})
    os.environ.update({name: value for name, value in cpu_environment(os.environ).items() if name != "LD_PRELOAD"})
    from vllm import LLM

    return LLM(
        str(TINY / "model"), worker_cls=WORKER, max_model_len=512, max_num_seqs=args.samples, seed=args.seed,
        speculative_config=speculative_config("specdec", str(TINY / "head"), num_drafts=3),
        additional_config={"specdec": {"steering": {"saes": {"tiny": str(TINY / "sae")}}}},
        enforce_eager=True,  # starts at once, where a server is compiled
    )  # fmt: skip


def sampled(llm: Any, args: argparse.Namespace, strength: float) -> dict[str, Any]:
    """What one strength does: each figure's mean, and half its 95 % confidence interval over the texts."""
    from vllm import SamplingParams

    asked: dict[str, Any] = {"read": {"features": [args.feature]}, "figures": True}
    if strength:
        asked |= {"steer": [{"feature": args.feature, "add": strength}], "on": "generated"}
    params = SamplingParams(
        n=args.samples, temperature=args.temperature, max_tokens=args.tokens, seed=args.seed, ignore_eos=True,
        extra_args={"specdec": asked},
    )  # fmt: skip
    [result] = llm.generate([args.prompt], params, use_tqdm=False)
    texts = [output.text for output in result.outputs]
    answers = [output.specdec for output in result.outputs]
    return {
        "strength": strength,
        "count": mean([100 * len(re.findall(args.count, text)) / max(1, len("".join(text.split()))) for text in texts]),
        "reading": mean([answer.read.activations.mean() for answer in answers]),
        "acceptance_length": mean([answer.figures.acceptance_length for answer in answers]),
        "texts": texts,
    }


def mean(values: list[float]) -> tuple[float, float]:
    """And half its 95 % confidence interval."""
    spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(1.96 * spread / len(values) ** 0.5)


def headings(args: argparse.Namespace) -> dict[str, str]:
    return {
        "count": "capitals per 100 characters" if args.count == "[A-Z]" else f"{args.count} per 100 characters",
        "reading": f"feature {args.feature}, mean activation",
        "acceptance_length": "acceptance length, tokens per step",
    }


def show(found: list[dict[str, Any]], args: argparse.Namespace) -> None:
    table = Table("strength", box=SIMPLE, title=f"mean of {args.samples} texts ± 95 %")
    for heading in headings(args).values():
        table.add_column(escape(heading), justify="right")
    for one in found:
        figures = (f"{value:.2f} ±{error:.2f}" for value, error in map(one.get, headings(args)))
        table.add_row(f"{one['strength']:+g}", *figures)
    console.print(table)
    for one in found:
        console.print(f"[bold]strength {one['strength']:+g}[/bold], the first text:")
        console.print(args.prompt + one["texts"][0], end="\n\n", markup=False, soft_wrap=True)


def draw(found: list[dict[str, Any]], args: argparse.Namespace) -> None:
    figure, sides = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for axes, (name, heading), color in zip(sides, headings(args).items(), COLORS, strict=True):
        values, errors = zip(*(one[name] for one in found), strict=True)
        strengths = [one["strength"] for one in found]
        axes.errorbar(strengths, values, errors, marker="o", markersize=4, capsize=3, color=color)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel(f"added to feature {args.feature} at every generated token", fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(args.plot, dpi=130)


def main() -> None:
    args = parse()
    with console.status("starting the engine"):
        llm = start(args)
    strengths = track(sorted(args.strengths), "sampling", console=console, transient=True)
    found = [sampled(llm, args, strength) for strength in strengths]
    show(found, args)
    draw(found, args)
    if args.json is not None:
        replace_file(args.json, json.dumps(found, indent=2).encode())
    console.print(f"plot: {args.plot}" + (f", numbers: {args.json}" if args.json else ""), markup=False)


if __name__ == "__main__":
    main()
