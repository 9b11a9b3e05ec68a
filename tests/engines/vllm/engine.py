"""Starting engine children and the folders they serve."""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.engines.vllm.forks import ROOT, Forks

MODEL = ROOT / "examples" / "tiny-lm" / "model"
HEAD = ROOT / "examples" / "tiny-lm" / "head"
CHILD = "tests.engines.vllm.child:main"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
# A process that might have looked for GPUs must not be forked.
FORKS = Forks([] if torch.cuda.is_available() else ["vllm", "vllm.v1.worker.cpu_worker"], ENVIRONMENT)

# float32: one and the same distribution whatever the batch's shape, so that comparisons are sharp.
BASE: dict[str, Any] = {
    "model": str(MODEL),
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 128,
    "enforce_eager": True,
    "disable_log_stats": False,
}


def speculative(num_drafts: int = 3, how: str = "probabilistic", head: Path = HEAD) -> dict[str, Any]:
    return {
        "speculative_config": {
            "method": "mtp",
            "model": str(head),
            "num_speculative_tokens": num_drafts,
            "draft_sample_method": how,
        }
    }


def ours(
    num_drafts: int = 3, how: str = "probabilistic", settings: dict[str, Any] | None = None, head: Path = HEAD
) -> dict[str, Any]:
    """Engine arguments that switch specdec on."""
    return {
        **speculative(num_drafts, how, head),
        "worker_cls": "specdec.engines.vllm.Worker",
        "additional_config": {"specdec": settings or {}},
    }


@dataclass
class Outcome:
    """results[job][request] = {token_ids, text, finish_reason, logprobs}; metrics by name."""

    results: list[list[dict[str, Any]]]
    metrics: dict[str, Any] = field(default_factory=dict)
    specdec: dict[str, float] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    def tokens(self, job: int) -> list[list[int]]:
        return [r["token_ids"] for r in self.results[job]]


def run_child(engine: dict[str, Any], jobs: list[dict[str, Any]], fault: str | None = None, **env: str) -> Outcome:
    """Run the jobs in a real engine in its own process; fails the test with the child's last lines if it dies."""
    return ask_child({"engine": {**BASE, **engine}, "jobs": jobs, "fault": fault}, **env)


def ask_child(call: dict[str, Any], child: str = CHILD, forks: Forks = FORKS, **env: str) -> Outcome:
    """What the function `child` answers to a call, to which the place for its answer is added."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        done = forks.run(child, {**call, "output": str(path)}, **env)
        assert done.returncode == 0, f"the engine failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return Outcome(**json.loads(path.read_text()))


def fail_child(engine: dict[str, Any], fault: str | None = None, **env: str) -> str:
    """What a child that must not start says (stderr); fails the test if it starts after all."""
    call = {"engine": {**BASE, **engine}, "jobs": [], "fault": fault, "output": os.devnull}
    done = FORKS.run(CHILD, call, **env)
    assert done.returncode != 0, "the engine started although it should have refused"
    return done.stderr
