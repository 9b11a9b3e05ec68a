"""What is timed: our backends, other implementations of the same step, and the floor: reading the same bytes once.

Each contender turns a case into (prepare, run): `prepare` is not timed, and what it returns is handed to `run`.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from _verify.cases import FILTERS, Case

from specdec.verify import backends, verify

Prepare = Callable[[], Any]
Run = Callable[[Any], Any]


class Contender(NamedTuple):
    name: str
    absent: Callable[[str], str | None]  # device -> why it cannot run there
    make: Callable[[Case], tuple[Prepare, Run]]


def ours(name: str, method: str = "token") -> Contender:
    def absent(device: str) -> str | None:
        if name not in backends():
            return "not usable on this machine"
        if (name in ("cuda", "triton")) != (device == "cuda") and name != "reference":
            return f"not for {device}"
        return None

    def make(case: Case) -> tuple[Prepare, Run]:
        # As in an engine: on a GPU nothing waits for the device.
        on_bad_row: Any = "repair" if case.target.is_cuda else "raise"
        return _nothing, lambda _: verify(
            case.target, case.draft, case.sampling, method=method, backend=name, on_bad_row=on_bad_row
        )

    return Contender(name if method == "token" else f"{name} {method}", absent, make)


def _nothing() -> None:
    return None


def _floor(case: Case) -> tuple[Prepare, Run]:
    logits = case.draft.logits
    assert logits is not None, "bench drafts are sampled"
    parts = [t.view(torch.int16 if t.shape[1] % 2 else torch.int32) for t in (case.target, logits)]
    wide = [t.view(torch.int64) if t.numel() * t.element_size() % 8 == 0 else t for t in map(torch.flatten, parts)]
    return _nothing, lambda _: [t.sum() for t in wide]


@cache
def _register_cpu_kernels() -> None:
    platform = importlib.import_module("vllm.platforms").current_platform
    if platform.is_cpu():
        platform.import_kernels()
        platform.register_triton_kernel_overrides()


def _vllm_v1(case: Case) -> tuple[Prepare, Run]:
    """`apply_sampling_constraints` + `rejection_sample`, as vLLM's V1 sampler calls them.

    Left out of the time, in vLLM's favour: its float32 copy of the target rows, its float32 softmax of the draft rows,
    and drawing the bonus tokens. Its `expand_batch_to_tokens` is replaced: on a CPU it returns uninitialised memory.
    """
    _register_cpu_kernels()
    module = importlib.import_module("vllm.v1.sample.rejection_sampler")
    metadata_type = importlib.import_module("vllm.v1.sample.metadata").SamplingMetadata
    n, batch, s = case.shape.drafts, case.shape.batch, case.sampling
    off = FILTERS[case.shape.filters]
    fields: dict[str, Any] = dict.fromkeys(metadata_type.__dataclass_fields__)
    fields |= {"all_greedy": False, "all_random": True, "no_penalties": True, "generators": {}}
    fields |= {"temperature": s.temperature, "top_k": s.top_k if "top_k" in off else None}
    fields |= {"top_p": s.top_p if "top_p" in off else None}
    metadata = metadata_type(**fields)
    cumulative = torch.arange(1, batch + 1, dtype=torch.int32, device=case.target.device) * n
    counts = [n] * batch

    def expand(x: torch.Tensor, cu: torch.Tensor, total: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        return torch.where(x == replace_from, replace_to, x).repeat_interleave(n)

    module.expand_batch_to_tokens = expand
    draft_rows = case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"
    drafts = draft_rows.float().div_(s.temperature.repeat_interleave(n)[:, None]).softmax(-1)
    bonus = torch.zeros(batch, 1, dtype=torch.int32, device=case.target.device)
    is_draft = torch.arange(case.target.shape[0], device=case.target.device) % (n + 1) < n

    def prepare() -> torch.Tensor:
        return case.target[is_draft].float()

    def run(logits: torch.Tensor) -> torch.Tensor:
        logits = module.apply_sampling_constraints(logits, cumulative, metadata)
        return module.rejection_sample(case.draft.token_ids, counts, n, cumulative, drafts, logits, bonus, metadata)

    return prepare, run


def _flashinfer(case: Case) -> tuple[Prepare, Run]:
    """Chain speculative sampling, and the probabilities it needs: softmax, top-k and top-p of target and draft rows."""
    sampling = importlib.import_module("flashinfer.sampling")
    n, batch, s, off = case.shape.drafts, case.shape.batch, case.sampling, FILTERS[case.shape.filters]
    vocabulary, draft_rows = case.shape.vocabulary, case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"

    def probabilities(rows: torch.Tensor, each: int) -> torch.Tensor:
        p = sampling.softmax(rows.float(), temperature=s.temperature.repeat_interleave(each))
        if "top_k" in off:
            p = sampling.top_k_renorm_probs(p, s.top_k.repeat_interleave(each))
        if "top_p" in off:
            p = sampling.top_p_renorm_probs(p, s.top_p.repeat_interleave(each))
        return p.view(batch, each, vocabulary)

    ids = case.draft.token_ids.view(batch, n).to(torch.int32)
    return _nothing, lambda _: sampling.chain_speculative_sampling(
        probabilities(draft_rows, n), ids, probabilities(case.target, n + 1)
    )


def _needs(module: str, devices: tuple[str, ...]) -> Callable[[str], str | None]:
    def absent(device: str) -> str | None:
        if device not in devices:
            return f"not for {device}"
        return None if importlib.util.find_spec(module.partition(".")[0]) else f"{module} is not installed"

    return absent


CONTENDERS = [
    Contender("floor", lambda device: None, _floor),
    *(ours(name) for name in ("cuda", "triton", "cpu")),
    *(ours(name, "block") for name in ("cuda", "triton", "cpu")),
    Contender("vllm-v1", _needs("vllm", ("cpu", "cuda")), _vllm_v1),
    Contender("flashinfer", _needs("flashinfer", ("cuda",)), _flashinfer),
]
