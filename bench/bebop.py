"""Which training gives the head with the longest acceptance: the shape of Bebop's Table 2 and of its entropy figure.

    python bench/bebop.py --model MODEL --data TEXT --eval-data HELD_OUT --steps 200 --seeds 0 1 2

A first head is trained with cross entropy, as models' own MTP layers are (or with another loss, or given with --start).
From it, each contestant trains a head of its own: the same batches in the same order, the same steps, the same learning
rates. Measured on held-out text, which no head has seen: acceptance length under rejection sampling (Bebop, arXiv
2606.12370) at every temperature and filter of the grid, with drafts at the request's own temperature and at the head's
calibrated draft scale; at temperature 1 the slope of acceptance length against the target's entropy, with its 95 %
interval. Means over the seeds, and their spread.

Interrupted, the same command goes on where it was. Seeds may train in processes of their own, at the same time: give
each its --seeds and --train-only, then run the whole command for the tables.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from _bebop.contestants import CONTESTANTS, SETTINGS
from _bebop.measuring import measure_heads
from _bebop.plots import draw
from _bebop.screen import console
from _bebop.tables import entropy_table, loss_table, robust_table
from _bebop.training import KeptStates, train_head

from specdec.errors import SpecdecError
from specdec.files import make_writable, replace_file
from specdec.provenance import provenance
from specdec.training.data import TokenStream, load_streams
from specdec.training.losses import LOSSES
from specdec.training.settings import Settings
from specdec.training.target import Target

START_SEED = 1_000_003
COMMON = ("model", "data", "eval_data", "num_steps_ahead", "batch_tokens", "seq_len", "optimizer", "lr", "dtype")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--eval-data", type=Path, nargs="+", required=True, help="for the figures alone")
    parser.add_argument("--calibrate-data", type=Path, nargs="+", help="for draft scales; default: --eval-data")
    parser.add_argument("--work", type=Path, default=Path("build/bebop"), help="the heads and what is needed to go on")
    parser.add_argument("--output", type=Path, default=Path("bench/results/bebop.json"), help="plots go beside it")
    parser.add_argument("--heads", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--labels", default="text", choices=["text", "target"], help="what ce learns: specdec train")
    parser.add_argument("--start", type=Path, help="start from this head instead of training one")
    parser.add_argument("--start-loss", default="ce", choices=list(LOSSES))
    parser.add_argument("--start-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, required=True, help="optimiser steps of each head")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-only", action="store_true", help="train these heads and stop")
    parser.add_argument("--num-steps-ahead", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adamw"])
    parser.add_argument("--lr", type=float, help="default: that of specdec train")
    parser.add_argument("--eval-windows", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument(
        "--keep-gib", type=float, default=2.0, help="memory for hidden states that a seed's heads share"
    )
    return parser.parse_args()


def folder(work: Path, name: str, seed: int) -> Path:
    """Where a contestant's head of this seed is."""
    return work / f"{name.replace(' ', '-')}-{seed}"


def train_all(args: argparse.Namespace, target: Target, streams: tuple[TokenStream, TokenStream]) -> dict[str, Any]:
    """Reports of all heads by folder name."""
    common = {name: getattr(args, name) for name in COMMON} | {"tensorboard": False}
    common["eval_data"] = args.calibrate_data or args.eval_data
    reports: dict[str, Any] = {}
    if args.start is None:
        args.start = args.work / "start"
        first = Settings(**common, output=args.start, loss=args.start_loss, steps=args.start_steps, seed=START_SEED)
        reports["start"] = train_head(first, target, streams, KeptStates(target, 0), console.print)
    for seed in args.seeds:
        states = KeptStates(target, int(args.keep_gib * 2**30))
        for name in args.heads:
            own = CONTESTANTS[name] | ({"labels": args.labels} if name == "ce" else {})
            settings = Settings(
                **common, **own, output=folder(args.work, name, seed), steps=args.steps, seed=seed, init_from=args.start
            )  # fmt: skip
            reports[settings.output.name] = train_head(settings, target, streams, states, console.print)
    return reports


def run(args: argparse.Namespace) -> None:
    make_writable(args.work)
    make_writable(args.output.parent)
    target = Target(args.model, getattr(torch, args.dtype))
    streams = load_streams(target.tokenizer, args.data, args.calibrate_data or args.eval_data)
    reports = train_all(args, target, streams)
    if args.train_only:
        return
    began = time.monotonic()
    folders = {name: [folder(args.work, name, seed) for seed in args.seeds] for name in args.heads}
    results = measure_heads({"start": [args.start], **folders}, target, args)
    for table in (loss_table(results), robust_table(results), entropy_table(results)):
        console.print(table)
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "measuring_seconds": round(time.monotonic() - began, 1), "steps": args.steps, "seeds": args.seeds,
        "labels": args.labels, "start": reports.get("start", str(args.start)),
        "settings": [asdict(setting) for setting in SETTINGS],
        "minutes": {name: report["minutes"] for name, report in reports.items()}, "results": results,
    }  # fmt: skip
    replace_file(args.output, (json.dumps(content, indent=1) + "\n").encode())
    for path in (args.output, *draw(results, args.output)):
        console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    try:
        run(parse())
    except SpecdecError as error:
        sys.exit(f"bebop.py: {error}")
