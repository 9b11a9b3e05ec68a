"""Does the server hold out, and do its counters stay right, whatever clients do?

The real server, as `specdec serve` starts it: the shipped model, its head and its SAE. Clients ask for everything that
can be asked for, 1, 8, 32, 4 and 64 at a time: every way of sampling, grammars, streams, chat, steering, reading,
figures, tenants. Some leave in the middle, some send what is malformed. Then every check of _soak/verdict.py: answers
whole and of the right size, counters equal to what clients counted, memory and open files level, nothing in the log,
streams that are ended when the server is asked to stop. A check that fails is one sentence, and exit status 1.

    python bench/soak.py                                               a quarter of an hour
    python bench/soak.py --minutes 1 --eager --output /tmp/soak.json
    python bench/soak.py --settings '{"drafts": {"temperature": "same"}}'
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _soak.drain import Drained, drain
from _soak.material import Material
from _soak.plan import Plan
from _soak.plot import draw
from _soak.run import Record, Soak
from _soak.server import LENGTH, Soaked, settings_of, soaked
from _soak.verdict import growth, verdict
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from specdec.files import make_writable, replace_file
from specdec.provenance import provenance

EXAMPLE = Path("examples/tiny-lm")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "model")
    parser.add_argument("--head", type=Path, default=EXAMPLE / "head")
    parser.add_argument("--sae", type=Path, default=EXAMPLE / "sae")
    parser.add_argument(
        "--corpus", type=Path, default=EXAMPLE / "corpus.py", help="where prompts come from: specdec demo"
    )
    parser.add_argument("--settings", type=json.loads, default={}, help="of the plugin, JSON, over those of the soak")
    parser.add_argument("--unseeded", action="store_true", help="seeded requests need not repeat")
    parser.add_argument("--eager", action="store_true", help="do not compile: starts in 20 s")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "specdec-soak.log")
    parser.add_argument("--output", type=Path, default=Path("bench/results/soak.json"), help="a plot goes beside it")
    return parser.parse_args()


async def soak(server: Soaked, plan: Plan, material: Material, args: argparse.Namespace) -> tuple[Record, Drained]:
    columns = (TextColumn("{task.description:20}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("alone", total=plan.seconds)
        running = Soak(
            server, plan, material, not args.unseeded,
            lambda seconds, what: progress.update(task, completed=seconds, description=what),
        )  # fmt: skip
        record = await running.run()
    return record, await drain(server, material)


def table_of(record: Record, plan: Plan) -> Table:
    table, ledger = Table("", "", box=SIMPLE, show_header=False), record.ledger
    table.add_row("requests", f"{ledger.requests}, of {len(ledger.kinds)} kinds")
    table.add_row("by status", ", ".join(f"{name} {count}" for name, count in sorted(ledger.statuses.items())))
    table.add_row("tokens of whole answers", f"{ledger.tokens}, {ledger.tokens / record.seconds:.0f} a second")
    table.add_row("preemptions", f"{record.whole.total('vllm:num_preemptions_total'):.0f}")
    table.add_row("seeded requests that differ from alone", str(record.texts.moved))
    drafted, accepted = (record.whole.total(f"specdec_{n}_total") for n in ("draft_tokens", "accepted_tokens"))
    table.add_row("drafts, accepted", f"{drafted:.0f}, {accepted:.0f}")
    first, last = record.samples[0], record.samples[-1]
    started = {process.pid: process.rss for process in first.processes}
    for process in last.processes:
        each = growth(record, plan).get(f"{process.name} {process.pid}")
        level = "" if each is None else f"; behind the warm-up {each.slope:+.2f} a minute, {each.rise:+.1%} in all"
        begun = started.get(process.pid, float("nan"))
        table.add_row(process.name, f"{begun:.0f} MiB at first, {process.rss:.0f} at last{level}")
    return table


def content_of(record: Record, plan: Plan, failed: list[str], args: argparse.Namespace) -> dict[str, Any]:
    ledger = record.ledger
    return {
        "question": __doc__.splitlines()[0], "command": " ".join(sys.argv), "provenance": provenance(),
        "settings": settings_of(args.sae, args.settings), "seconds": record.seconds, "failed": failed,
        "requests": dict(ledger.kinds.most_common()), "statuses": dict(ledger.statuses), "ends": dict(ledger.ends),
        "tokens": ledger.tokens, "growth": {name: asdict(each) for name, each in growth(record, plan).items()},
        "bounds": {"slope": plan.slope, "rise": plan.rise},
        "counted": {
            name: record.whole.total(name) for name in sorted({name for name, _ in record.whole.values})
            if name.endswith("_total") and record.whole.total(name)
        },
        "samples": [
            {"seconds": round(s.seconds, 1), "clients": s.clients, "tokens": s.tokens,
             "rss_mib": {f"{p.name} {p.pid}": round(p.rss, 1) for p in s.processes},
             "files": {f"{p.name} {p.pid}": p.files for p in s.processes}}
            for s in record.samples
        ],
    }  # fmt: skip


def main() -> None:
    args, console = parse(), Console(width=None if sys.stdout.isatty() else 140)
    make_writable(args.output.parent)
    plan = Plan(60 * args.minutes, samples=max(1.0, args.minutes / 5))
    material = Material.of(args.model, args.corpus, args.sae, LENGTH)
    settings = settings_of(args.sae, args.settings)
    with soaked(args.model, args.head, settings, args.log, args.eager) as server:
        record, drained = asyncio.run(soak(server, plan, material, args))
    failed = verdict(record, plan, drained, args.log)
    console.print(table_of(record, plan))
    draw(record, args.output.with_suffix(".png"))
    replace_file(args.output, (json.dumps(content_of(record, plan, failed, args), indent=1) + "\n").encode())
    console.print(f"written: {args.output}, {args.output.with_suffix('.png')}")
    for sentence in failed:
        console.print(f"[red]✗[/] {sentence}", highlight=False, markup=True)
    console.print("[green]✓[/] all checks passed" if not failed else f"{len(failed)} checks failed; log: {args.log}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
