"""A process that has imported vLLM, and forks another one for each engine: importing takes longer than starting one.

Each engine still has a process of its own, to which nothing has happened but imports. As a script this is the process
that forks: orders come in as lines of JSON, {"function": "module:name", "call": its argument, "env": further variables,
"stdout": path, "stderr": path}, and for each the exit status goes out as a line.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 900  # that an engine may take


class Forks:
    """preload: modules to import, and functions ("module:name") to call, in that order; env: further variables."""

    def __init__(self, preload: Sequence[str], env: Mapping[str, str]):
        self._preload, self._env = list(preload), dict(env)
        self._process: subprocess.Popen | None = None

    def run(self, function: str, call: Any, **env: str) -> subprocess.CompletedProcess:
        """function(call), named "module:name", in a process of its own, with these variables set."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None, "asked for pipes"
        with tempfile.TemporaryDirectory() as folder:
            said = {name: Path(folder) / name for name in ("stdout", "stderr")}
            paths = {name: str(path) for name, path in said.items()}
            process.stdin.write(json.dumps({"function": function, "call": call, "env": env, **paths}) + "\n")
            process.stdin.flush()
            status = process.stdout.readline()
            assert status, f"the process that forks engines has ended with {process.wait()}"
            out, err = (path.read_text() for path in said.values())
            return subprocess.CompletedProcess(function, int(status), out, err)

    def _started(self) -> subprocess.Popen:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.engines.vllm.forks", *self._preload],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **self._env},
            )  # fmt: skip
            atexit.register(self._end)
        return self._process

    def _end(self) -> None:
        assert self._process is not None and self._process.stdin is not None, "it has been started"
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    for name in sys.argv[1:]:
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    gc.collect()
    gc.freeze()  # vLLM collects garbage several times at each start; what was imported is none
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(order: dict[str, Any]) -> NoReturn:
    """In the forked process."""
    signal.alarm(SECONDS)
    for path, number in ((os.devnull, 0), (order["stdout"], 1), (order["stderr"], 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.update(order["env"])
    status = 1
    try:
        module, function = order["function"].split(":")
        getattr(importlib.import_module(module), function)(order["call"])
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()  # all that an interpreter does at its end but to free its memory piece by piece
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
