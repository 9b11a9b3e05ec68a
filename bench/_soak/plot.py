"""Memory and throughput over time, the number of clients behind them."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .run import Record


def draw(record: Record, path: Path) -> None:
    seconds = np.asarray([sample.seconds for sample in record.samples]) / 60
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4.6), sharex=True)
    for process in record.samples[-1].processes:
        rss = [next((p.rss for p in s.processes if p.pid == process.pid), np.nan) for s in record.samples]
        above.plot(seconds, rss, label=process.name)
    above.set_ylabel("resident memory, MiB")
    above.set_ylim(bottom=0)
    above.legend(fontsize=8)
    tokens = np.asarray([sample.tokens for sample in record.samples])
    width = max(1, len(seconds) // 60)  # samples that a rate is taken over
    rate = (tokens[width:] - tokens[:-width]) / (60 * (seconds[width:] - seconds[:-width]))
    below.plot(seconds[width:], rate)
    below.set_ylabel("tokens/s of whole answers")
    below.set_xlabel("minutes")
    behind = below.twinx()
    behind.step(seconds, [sample.clients for sample in record.samples], color="0.7", linewidth=0.8, where="post")
    behind.set_ylabel("clients")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
