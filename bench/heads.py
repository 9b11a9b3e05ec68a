"""Which loss gives the head with the longest acceptance: heads trained alike from one start, but for the loss.

    python bench/heads.py --model MODEL --data TEXT --eval-data HELD_OUT --steps 300 --seeds 0 1 2

A first head is trained with KL (or given with --start). From it, each loss trains a head of its own: the same batches
in the same order, the same steps, the same learning rates. The table shows the acceptance length under rejection
sampling at temperature 1 on held-out text, mean over the seeds. Interrupted, the same command goes on where it was.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from specdec.errors import SpecdecError
from specdec.evaluation.acceptance import Acceptance, Filters, measure_acceptance
from specdec.heads import load_head
from specdec.provenance import provenance
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, Windows, load_streams
from specdec.training.losses import LOSSES
from specdec.training.settings import Settings
from specdec.training.state import REPORT, STATE, prepare_output
from specdec.training.target import Target
from specdec.training.trainer import Trainer

TEMPERATURES = (1.0, 0.6, 0.0)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


class KeptStates:
    """Hidden states of the target, kept while the heads of one seed train: they all read the same batches."""

    def __init__(self, target: Target, limit_bytes: int) -> None:
        self.target, self.left, self.kept = target, limit_bytes, dict[tuple[int, ...], torch.Tensor]()

    def __call__(self, numbers: torch.Tensor, windows: Windows) -> torch.Tensor:
        key = tuple(numbers.tolist())
        if key in self.kept:
            return self.kept[key]
        hidden = self.target.hidden(windows)
        if hidden.nbytes <= self.left:
            self.kept[key] = hidden
            self.left -= hidden.nbytes
        return hidden


def train_head(
    settings: Settings, target: Target, streams: tuple[TokenStream, TokenStream], states: KeptStates
) -> float:
    """Trains one head, or goes on with it, or leaves a finished one alone. Returns the seconds per step."""
    if (settings.output / REPORT).exists():
        done = json.loads((settings.output / REPORT).read_text())
        saved = torch.load(settings.output / STATE, weights_only=True)["settings"]
        settings.check_same_run(saved)
        return 60.0 * done["minutes"] / done["steps"]
    state = prepare_output(settings.output, resume=(settings.output / STATE).exists())
    trainer = Trainer(settings, target, *streams, hidden=states)
    if state is not None:
        trainer.restore(state)

    def report(run: Trainer, loss: float, alphas: list[float]) -> None:
        if run.step_number % 20 == 0:
            console.print(f"{settings.output.name} step {run.step_number} loss {loss:.4f} {run.elapsed:.0f} s")

    def evaluated(run: Trainer, result: Acceptance) -> None:
        console.print(f"{settings.output.name} step {run.step_number}: {result}")

    summary = trainer.run(report, evaluated)
    return 60.0 * float(summary["minutes"]) / int(summary["steps"])


def measure(folder: Path, target: Target, windows: list[Windows], steps: int, autocast: bool) -> dict:
    """Held-out figures of a head at each temperature."""
    head = load_head(folder, target.config)
    figures = {f"T={t:g}": measure_acceptance(head, target, windows, steps, Filters(t), autocast) for t in TEMPERATURES}
    return {name: figure.as_dict() for name, figure in figures.items()}


def mean_length(runs: list[dict], temperature: str, key: str = "length") -> float:
    return sum(run[temperature][key] for run in runs) / len(runs)


def table(start: dict, results: dict[str, list[dict]]) -> Table:
    """Means over seeds; gain over ce (without it: the first loss) in percent of its acceptance length."""
    out = Table(title="acceptance length on held-out text, rejection sampling")
    for name in ("head", "seeds", "T=1", "gain", "lowest-highest", "alpha per step, T=1", "T=0.6", "target-only T=1"):
        out.add_column(name, justify="left" if name == "head" else "right")
    base = mean_length(results.get("ce") or next(iter(results.values())), "T=1")
    for name, runs in {"start": [start], **results}.items():
        length = mean_length(runs, "T=1")
        lengths = sorted(run["T=1"]["length"] for run in runs)
        alphas = (sum(run["T=1"]["alpha"][k] for run in runs) / len(runs) for k in range(len(runs[0]["T=1"]["alpha"])))
        out.add_row(
            name, str(len(runs)), f"{length:.4f}", f"{100 * (length / base - 1):+.2f} %",
            f"{lengths[0]:.4f}-{lengths[-1]:.4f}", " ".join(f"{a:.4f}" for a in alphas),
            f"{mean_length(runs, 'T=0.6'):.4f}", f"{mean_length(runs, 'T=1', 'greedy_length'):.4f}",
        )  # fmt: skip
    return out


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--eval-data", type=Path, nargs="+", default=[])
    parser.add_argument(
        "--work", type=Path, default=Path("build/bench-heads"), help="the heads and what is needed to go on"
    )
    parser.add_argument("--output", type=Path, default=Path("bench/results/heads.json"))
    parser.add_argument("--losses", nargs="+", default=["ce", "kl", "e2e-tv"], choices=list(LOSSES))
    parser.add_argument(
        "--labels", default="target", choices=["text", "target"], help="what ce learns; see specdec train"
    )
    parser.add_argument("--start", type=Path, help="start from this head instead of training one with KL")
    parser.add_argument("--start-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, help="steps of each head; default: from --minutes")
    parser.add_argument("--minutes", type=float, help="time for everything after the start; sets --steps by its speed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--num-steps-ahead", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adamw"])
    parser.add_argument("--lr", type=float)
    parser.add_argument("--eval-windows", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--keep-gib", type=float, default=4.0, help="memory for hidden states that all losses share")
    return parser.parse_args()


def planned_steps(args: argparse.Namespace, seconds_per_step: float) -> int:
    """Steps of each head; the first answer is kept in the work folder, so that all heads and resumptions agree."""
    plan = args.work / "plan.json"
    if args.steps is not None:
        return int(args.steps)
    if plan.exists():
        return int(json.loads(plan.read_text())["steps"])
    heads = len(args.losses) * len(args.seeds)
    steps = max(1, int(60 * args.minutes / heads / seconds_per_step))
    plan.write_text(json.dumps({"steps": steps}))
    return steps


def run(args: argparse.Namespace) -> None:
    if args.steps is None and args.minutes is None:
        raise SpecdecError("neither --steps nor --minutes is given: say how long the heads train")
    args.work.mkdir(parents=True, exist_ok=True)
    target = Target(args.model, getattr(torch, args.dtype))
    streams = load_streams(target.tokenizer, args.data, args.eval_data)
    windows = held_out_windows(streams[1], args.batch_tokens // args.seq_len, args.seq_len, args.eval_windows)
    common = {
        name: getattr(args, name)
        for name in (
            "model",
            "data",
            "eval_data",
            "num_steps_ahead",
            "batch_tokens",
            "seq_len",
            "optimizer",
            "lr",
            "dtype",
        )
    }
    began, start, speed = time.monotonic(), args.start, 1.0
    if start is None:
        start = args.work / "start"
        first = Settings(**common, output=start, loss="kl", steps=args.start_steps, seed=1_000_003)
        speed = train_head(first, target, streams, KeptStates(target, 0))
    steps = planned_steps(args, speed)
    autocast = args.dtype == "bfloat16"
    results: dict[str, list[dict]] = {loss: [] for loss in args.losses}
    for seed in args.seeds:
        states = KeptStates(target, int(args.keep_gib * 2**30))
        for loss in args.losses:
            folder = args.work / f"{loss}-{seed}"
            settings = Settings(
                **common, output=folder, loss=loss, labels=args.labels, steps=steps, seed=seed, init_from=start
            )  # fmt: skip
            train_head(settings, target, streams, states)
            results[loss].append(measure(folder, target, windows, args.num_steps_ahead, autocast))
    start_figures = measure(start, target, windows, args.num_steps_ahead, autocast)
    console.print(table(start_figures, results))
    content = {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "seconds": round(time.monotonic() - began, 1), "steps": steps, "seeds": args.seeds, "labels": args.labels,
        "start": start_figures, "results": results,
    }  # fmt: skip
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written to {args.output}")


if __name__ == "__main__":
    try:
        run(parse())
    except SpecdecError as error:
        sys.exit(f"heads.py: {error}")
