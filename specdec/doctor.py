"""What `specdec doctor` finds out: one function per question, each giving findings with a remedy. No engine is imported
into this process."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from specdec.engines.installed import VLLM_RANGE, find_vllm, version_of
from specdec.provenance import cpu_model

State = Literal["ok", "absent", "broken"]
PLUGIN_GROUP, PLUGIN_NAME = "vllm.general_plugins", "specdec"


@dataclass(frozen=True)
class Finding:
    """absent: not here and not needed for what this machine can do; broken: something needed does not work."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if good else "broken", platform.python_version(), "" if good else "use 3.11 or later")


def packages() -> Iterator[Finding]:
    """Versions by metadata alone."""
    for name, needed in (("torch", True), ("triton", False), ("transformers", False), ("safetensors", True)):
        version = version_of(name)
        state: State = "ok" if version else "broken" if needed else "absent"
        yield Finding(name, state, version or "not installed", "" if version else f"pip install {name}")


def engine() -> Iterator[Finding]:
    found = find_vllm()
    if found is None:
        remedy = "pip install vllm (CUDA), or `make setup` in a checkout (CPU)"
        yield Finding("vllm", "broken", "not installed", remedy)
        return
    label = f"{found.distribution} {found.version}"
    if found.supported:
        yield Finding("vllm", "ok", f"{label}, supported ({VLLM_RANGE})")
    else:
        yield Finding("vllm", "broken", f"{label} is outside the supported range", f"install vLLM {VLLM_RANGE}")


def vision() -> Iterator[Finding]:
    """A CUDA build of torchvision beside a CPU build of torch stops vLLM at its first import."""
    version, torch = version_of("torchvision"), version_of("torch")
    if version is None or torch is None:
        return
    loads = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if loads.returncode == 0:
        yield Finding("torchvision", "ok", version)
        return
    last = (loads.stderr.strip().splitlines() or ["no message"])[-1]
    yield Finding(
        "torchvision",
        "broken",
        f"{version} does not load with torch {torch}: {last[:120]}",
        "pip uninstall -y torchvision torchaudio torchcodec",
    )


def plugin() -> Iterator[Finding]:
    """Whether an engine would find us: the entry point, and the module it names."""
    points = [p for p in importlib.metadata.entry_points(group=PLUGIN_GROUP) if p.name == PLUGIN_NAME]
    if not points:
        yield Finding("plugin", "broken", f"no entry point {PLUGIN_NAME!r} in {PLUGIN_GROUP}", "pip install specdec")
        return
    module = points[0].module
    try:
        found = importlib.util.find_spec(module) is not None  # imports the packages above it
    except ImportError as error:
        yield Finding("plugin", "broken", f"{module} cannot be imported: {error}", "repair the engine, see above")
        return
    if found:
        yield Finding("plugin", "ok", f"entry point {points[0].value}")
    else:
        yield Finding("plugin", "broken", f"its module {module} is missing", "install specdec again")


def gpu() -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"] if tool else None
    answer = subprocess.run(query, capture_output=True, text=True) if query else None
    if answer is not None and answer.returncode == 0 and answer.stdout.strip():
        yield Finding("gpu", "ok", "; ".join(answer.stdout.strip().splitlines()))
    else:
        yield Finding("gpu", "absent", "none: the CPU backends are used")


def nvcc() -> Iterator[Finding]:
    tool = shutil.which("nvcc") or next((str(p) for p in (Path("/usr/local/cuda/bin/nvcc"),) if p.exists()), None)
    if tool is None:
        yield Finding("nvcc", "absent", "not found: only needed to build CUDA kernels")
        return
    text = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release ([\d.]+)", text)
    yield Finding("nvcc", "ok", f"{release.group(1) if release else 'unknown version'} ({tool})")


def compiler() -> Iterator[Finding]:
    """Building from source needs one, and so does an engine that compiles its model on a CPU."""
    tool = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if tool is None:
        remedy = "install g++, or start CPU servers with --enforce-eager"
        yield Finding("C++ compiler", "absent", "none found", remedy)
    else:
        yield Finding("C++ compiler", "ok", tool)


def cpu() -> Iterator[Finding]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError as error:
        yield Finding("cpu", "broken", f"/proc/cpuinfo cannot be read ({error.strerror})", "use Linux")
        return
    flags = set((re.search(r"^flags\s*:(.*)$", text, re.MULTILINE) or ["", ""])[1].split())
    wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags
    level = "AVX-512" if wide else "AVX2" if {"avx2", "fma"} <= flags else "neither AVX-512 nor AVX2: scalar code"
    extra = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    yield Finding("cpu", "ok", f"{cpu_model()}: {', '.join([level, *extra])}")


def backends() -> Iterator[Finding]:
    """Each verify backend against the reference, on a small batch whose every row is random."""
    try:
        from specdec.verify.backends import BACKENDS, problem_of
    except ImportError as error:
        yield Finding("verify", "broken", f"cannot be imported: {error}", "install specdec again (`make setup`)")
        return
    for name in BACKENDS.names():
        problem = problem_of(name)
        if problem is None:
            yield _try_backend(name)
        else:  # the CPU's is needed everywhere, the GPU's only where there is one
            yield Finding(f"verify {name}", "broken" if name == "cpu" else "absent", problem)


def _try_backend(name: str) -> Finding:
    import torch

    from specdec.sampling import SamplingBatch
    from specdec.verify import Draft, sample_draft, verify
    from specdec.verify.backends import BACKENDS

    device = next(d for d in ("cpu", "cuda") if BACKENDS.get(name).accepts(torch.device(d)))
    generator = torch.Generator().manual_seed(0)
    batch, drafts, vocabulary = 8, 3, 1003
    sampling = SamplingBatch.uniform(batch, 0.8, top_k=50, top_p=0.95, seed=7, position=11, device=device)
    rows = torch.randn(batch, drafts, vocabulary, generator=generator).to(device)
    target = torch.randn(batch * (drafts + 1), vocabulary, generator=generator).to(device)
    tokens = [sample_draft(rows[:, j], sampling, j, backend="reference")[0] for j in range(drafts)]
    draft = Draft(torch.stack(tokens, 1).flatten(), [drafts] * batch, logits=rows.flatten(0, 1))
    expected = verify(target, draft, sampling, backend="reference").token_ids
    try:
        found = verify(target, draft, sampling, backend=name).token_ids
    except Exception as error:  # whatever a backend does wrong is what is to be reported
        return Finding(f"verify {name}", "broken", f"fails: {error}", "build specdec again (`make setup`)")
    same = torch.equal(expected, found)
    if name == "reference":
        return Finding("verify reference", "ok", "works; it defines what the others must give")
    detail = f"{batch} requests, {drafts} drafts, {vocabulary} tokens: " + (
        "equals the reference" if same else "differs"
    )
    return Finding(
        f"verify {name}", "ok" if same else "broken", detail, "" if same else "report it with this machine's CPU"
    )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python, packages, engine, vision, plugin, cpu, compiler, gpu, nvcc, backends,
)  # fmt: skip


def examine() -> list[Finding]:
    """All findings, in the order in which they are shown."""
    return [finding for check in CHECKS for finding in check()]
