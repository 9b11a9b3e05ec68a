"""The server that is soaked: the real one, as `specdec serve` starts it, with an SAE, tenants and few KV blocks."""

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdec.demo.servers import Server, free_port
from specdec.engines.command import server_command
from specdec.engines.installed import require_vllm

from .material import MODEL_NAME, SAE_NAME

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
LENGTH, DRAFTS = 512, 3
GRAMMARS = '{"backend": "xgrammar", "disable_any_whitespace": true}'  # or a small model writes blanks for ever
STEP = 256  # tokens of one engine step, at most


class Soaked(Server):
    """A server whose main process can be asked to stop, as a supervisor would ask it."""

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def ask_to_stop(self) -> None:
        assert self._process is not None, "it runs"
        self._process.send_signal(signal.SIGTERM)

    def status_within(self, seconds: float) -> int | None:
        """The main process's exit status; None: it has not ended by then."""
        assert self._process is not None, "it was started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def settings_of(sae: Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """The plugin's settings; more: laid over them, section by section."""
    found: dict[str, Any] = {
        "steering": {"saes": {SAE_NAME: str(sae)}, "max_programs": 16},
        "metrics": {"max_tenants": 4},
    }
    for section, values in more.items():
        found[section] = {**found.get(section, {}), **values}
    return found


def soaked(model: Path, head: Path, settings: Mapping[str, Any], log: Path, eager: bool) -> Soaked:
    """Not started yet. float32: a request's tokens do not depend on what shares its batch.

    More may run at once (48) than the cache holds (4,096 tokens), so that requests are preempted; fewer than come.
    """
    port = free_port()
    extra = (
        "--served-model-name", MODEL_NAME, "--dtype", "float32", "--max-model-len", str(LENGTH), "--max-num-seqs", "48",
        "--block-size", "32", "--num-gpu-blocks-override", "128", "--chat-template", TEMPLATE,
        "--max-num-batched-tokens", str(STEP), "--structured-outputs-config", GRAMMARS,
    )  # fmt: skip
    command = server_command(
        "specdec", require_vllm(), str(model), str(head), num_drafts=DRAFTS, settings=settings, eager=eager, port=port,
        extra=extra,
    )  # fmt: skip
    return Soaked(command, port, log)
