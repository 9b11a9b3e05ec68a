"""The memory and open files of a server's processes, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """rss in MiB; files: open descriptors."""

    pid: int
    name: str
    rss: float
    files: int


def processes_of(session: int) -> list[Process]:
    """All processes of a session that live, the eldest first."""
    found = []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            state, _, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its) != session or state == "Z":
                continue
            name = (folder / "comm").read_text().strip()
            rss = int((folder / "statm").read_text().split()[1]) * PAGE / MIB
            found.append(Process(int(folder.name), name, rss, len(os.listdir(folder / "fd"))))
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone while we looked
    return found


def slope(seconds: np.ndarray, values: np.ndarray, within: float) -> float:
    """Per minute: the median of the slopes (Theil and Sen) of all pairs that are `within` seconds of each other.

    A leak is in most of them. A step that comes once, where something larger than ever before is met, is in few.
    """
    first, second = np.triu_indices(len(seconds), 1)
    near = seconds[second] - seconds[first] <= within
    first, second = first[near], second[near]
    return 60 * float(np.median((values[second] - values[first]) / (seconds[second] - seconds[first])))


def rise(values: np.ndarray) -> float:
    """From the median of the first fifth to that of the last, as a share of the first."""
    fifth = max(1, len(values) // 5)
    first, last = np.median(values[:fifth]), np.median(values[-fifth:])
    return float(last / first - 1)
