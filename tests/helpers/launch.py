"""`specdec` in processes of its own, which can be killed: forked from one that has imported everything once."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.launch_imports"])


class Run:
    """The same command in one process for each of `commands`, which between them form one distributed run."""

    def __init__(
        self, commands: Sequence[Sequence[object]], log: Path, sharded: bool = False,
        killed_at_save: int = 0, fast_clocks: bool = False,
    ) -> None:  # fmt: skip
        """killed_at_save: the first process gets SIGKILL when half of that checkpoint is written. fast_clocks: time
        passes ten times as fast for all but the first."""
        self.log = log
        shared = {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        shared["LOCAL_WORLD_SIZE"] = str(len(commands))
        if sharded:  # as `accelerate launch --use_fsdp` sets them
            shared |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
        self.processes = []
        for rank, command in enumerate(commands):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if len(commands) > 1 else {}
            faults = (0 if rank else killed_at_save, 10.0 if fast_clocks and rank else 1.0)
            arguments = ([str(a) for a in command], own, str(log), *faults)
            self.processes.append(CONTEXT.Process(target=_work, args=arguments, daemon=True))
        for process in self.processes:
            process.start()

    def finish(self) -> str:
        """Waits; returns what was printed. AssertionError: a process failed or hangs."""
        codes = self.exit_codes()
        printed = self.log.read_text()
        assert codes == [0] * len(codes), f"exit codes {codes}\n{printed[-4000:]}"
        return printed

    def exit_codes(self, seconds: float = 90.0) -> list[int | None]:
        """Waits; None for a process that had to be stopped since it hung."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes


def _work(arguments: list[str], environment: dict[str, str], log: str, killed_at_save: int, clock: float) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    real = time.monotonic
    time.monotonic = lambda: clock * real()
    if killed_at_save:
        _be_killed_at(killed_at_save)
    from specdec.cli import main

    main(arguments)


def _be_killed_at(save: int) -> None:
    import torch

    plain, saves = torch.save, []

    def killing(state: object, file: BinaryIO) -> None:
        saves.append(plain(state, file))
        if len(saves) == save:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = killing


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
