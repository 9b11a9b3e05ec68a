"""Programs that Debian packages, for tests: from PATH, or fetched by apt and unpacked under build/tools, without root.

Where neither can be done, the test that asks is skipped, with the reason.
"""

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "build" / "tools"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")


@dataclass(frozen=True)
class Program:
    """path, and what its environment needs on top of the present one."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Waits for it; both outputs are kept, as text."""
        return subprocess.run(
            [self.path, *map(str, arguments)], env={**os.environ, **self.env}, text=True, capture_output=True, **options
        )


def program(name: str, package: str, inside: str, alone: bool = False) -> Program:
    """The program `name` of PATH, or the file `inside` of the package. alone: it needs no library of other packages."""
    if found := shutil.which(name):
        return Program(Path(found))
    folder = TOOLS / package
    if (why := _problem(package, folder, alone)) is not None:
        pytest.skip(f"{name} is not on PATH, and apt cannot fetch {package}: {why}")
    libraries = [str(path) for place in LIBRARIES for path in (folder / place, folder / place / "pulseaudio")]
    return Program(folder / inside, {"LD_LIBRARY_PATH": ":".join(libraries)})


@cache  # tried once in a process
def _problem(package: str, folder: Path, alone: bool) -> str | None:
    """Unpacks the package, unless it is there. Why that does not work; None: it does."""
    try:
        _unpack_once(package, folder, alone)
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error)
        return next((line for line in reversed(told.splitlines()) if line.strip()), repr(error))
    return None


def _unpack_once(package: str, folder: Path, alone: bool) -> None:
    """Other test processes wait, and find it there."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            _fetch(package, new, alone, [])
        except subprocess.SubprocessError:  # no list of packages here, or one that is too old
            _fetch(package, new, alone, _fresh_lists())
        new.rename(folder)


def _fetch(package: str, folder: Path, alone: bool, options: list[str]) -> None:
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    names = [package]
    if not alone:
        plan = _apt([*options, "-s", "--no-install-recommends", "install", package], downloads)
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _apt([*options, "-o", "APT::Sandbox::User=root", "download", *names], downloads)
    for archive in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, capture_output=True, text=True)
    shutil.rmtree(downloads)


def _fresh_lists() -> list[str]:
    """apt's options for lists of our own, which need no root."""
    lists, cache_folder = TOOLS / "apt" / "lists", TOOLS / "apt" / "cache"
    for path in (lists / "partial", cache_folder / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache_folder}", "-o", "APT::Sandbox::User=root"]
    _apt([*options, "update"], TOOLS)
    return options


def _apt(arguments: list[str], folder: Path) -> str:
    return subprocess.run(
        ["apt-get", "-q", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=300
    ).stdout
