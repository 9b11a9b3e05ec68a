"""SGLang's chain rejection sampling for the conformance suite, under Triton's interpreter or on a GPU.

What runs is its own: the verify kernel, the seeded hash, top-k and top-p renormalisation, `_seeded_verify_coins` and
`fast_sample`, put together as `eagle_sample` and `sample_draft_proposal` do. Draft rows are probabilities, after the
temperature alone. SGLang's `__init__` imports what a server needs; the kernels do not need it, so it is stepped over.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from specdec.conformance.base import (
    LOST_ROWS,
    MANY_DRAWS,
    ONE_HOT,
    PENALTIES,
    PLACEHOLDERS,
    RAGGED,
    Drafts,
    Implementation,
    Step,
)
from specdec.conformance.implementations import interpreted
from specdec.sampling import SamplingBatch

UNSEEDED = 42  # SamplingBatchInfo.from_schedule_batch: the seed of requests that bring none, where seeds are enabled


class SglangChain(Implementation):
    """With `enable_deterministic_inference`, without which SGLang has no seeds. min-p is claimed: the server takes it
    under speculation, without a word."""

    name = "sglang"
    lacks: Mapping[str, str] = {
        ONE_HOT: "greedy drafts are verified by a CUDA kernel (tree_speculative_sampling_target_only)",
        RAGGED: "every request has the same number of drafts",
        PLACEHOLDERS: "its drafts are always known on the device",
        LOST_ROWS: "rows travel with the draft; no request sits a step out",
        PENALTIES: "applied to the logits before, once per request",
    }  # fmt: skip

    def __init__(self) -> None:
        on_gpu = torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        self.samples = 20_000 if on_gpu else 400
        if not on_gpu:
            self.lacks = {**self.lacks, MANY_DRAWS: "minutes under Triton's interpreter"}
            interpreted.allow_any_mask()
            interpreted.call_device_functions_directly()
        _step_over_init("sglang")
        self._kernels = importlib.import_module("sglang.kernels.ops.speculative.reject_sampling")
        self._renorm: Any = importlib.import_module("sglang.kernels.ops.sampling.renorm_triton")
        # It asks for a CUDA tensor.
        vars(self._renorm)["_prepare_probs"] = lambda probs: probs.float().contiguous()
        self._hash: Any = importlib.import_module("sglang.kernels.ops.sampling.murmur_hash")
        if not on_gpu:
            vars(self._hash)["murmur_hash32"] = partial(_interpreted_hash, self._hash.murmur_hash32_kernel)
        self._coins = _function("srt/speculative/eagle_utils.py", "_seeded_verify_coins")
        self._fast_sample = _function("srt/speculative/spec_utils.py", "fast_sample", ("_DRAFT_GUMBEL_SEED_SALT",))

    def draw(self, logits: Tensor, sampling: SamplingBatch, seeded: Tensor, step: int) -> Drafts:
        temperature, top_k = _greedy_as_top_1(sampling)
        probs = _softmax(logits.to(self.device), temperature.to(self.device))
        positions = (sampling.position + step).to(self.device)
        _, ids = self._fast_sample(
            probs, sampling_seed=_seeds(sampling, seeded).to(self.device), positions=positions, draft_step=step
        )
        ids = torch.where((top_k == 1).to(self.device)[:, None], probs.argmax(-1, keepdim=True), ids)
        return Drafts(ids[:, 0].to(torch.int32).cpu(), probs.cpu())

    def keep(self, token_ids: Tensor, logits: Tensor, sampling: SamplingBatch) -> Drafts:
        return Drafts(token_ids, _softmax(logits, _greedy_as_top_1(sampling)[0]))

    def verify(self, step: Step) -> Tensor:
        batch, n = len(step.counts), max(step.counts)
        slots, device = n + 1, self.device
        target = self._target_probabilities(step).view(batch, slots, -1)
        ids = step.drafts.token_ids.view(batch, n).long()
        candidates = torch.cat([torch.zeros(batch, 1, dtype=torch.int64), ids], 1).to(device)
        coins, final = self._coins(
            sampling_seed=_seeds(step.sampling, step.seeded).to(device),
            seq_lens=step.sampling.position.to(device),
            draft_token_num=slots,
            device=device,
        )
        index = torch.arange(batch * slots, device=device).view(batch, slots)
        predicts = torch.zeros(batch * slots, dtype=torch.int32, device=device)
        accept_index = torch.full((batch, slots), -1, dtype=torch.int32, device=device)
        accepted = torch.empty(batch, dtype=torch.int32, device=device)
        rows = step.drafts.rows
        assert rows is not None, "one-hot drafts are not claimed"
        # Without drafts SGLang samples elsewhere; the kernel then draws from the only row.
        draft = rows.view(batch, n, -1).to(device) if n else target[:, :0]
        self._kernels.chain_speculative_sampling_triton(
            predicts, accept_index, accepted, candidates, index, None, None,
            coins * (not step.zero_uniform), final, target, draft, 1.0, 1.0, True,
            block_verification=step.method == "block",
        )  # fmt: skip
        tokens = predicts.view(batch, slots)
        beyond = torch.arange(slots, device=device) > accepted[:, None]
        return tokens.masked_fill(beyond, -1).cpu()

    def _target_probabilities(self, step: Step) -> Tensor:
        each = torch.tensor(step.counts) + 1
        temperature, top_k = (x.repeat_interleave(each).to(self.device) for x in _greedy_as_top_1(step.sampling))
        probs = _softmax(step.target.to(self.device), temperature)
        vocabulary = probs.shape[1]
        if bool((top_k > 0).any()):
            probs = self._renorm.top_k_renorm_probs_triton(probs, torch.where(top_k == 0, vocabulary, top_k))
        if bool((step.sampling.top_p < 1).any()):
            top_p = step.sampling.top_p.repeat_interleave(each).to(self.device)
            probs = self._renorm.top_p_renorm_probs_triton(probs, top_p)
        return probs


def _softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    return (logits.float() / temperature[:, None]).softmax(-1)


def _greedy_as_top_1(s: SamplingBatch) -> tuple[Tensor, Tensor]:
    """SamplingParams.normalize: temperature 0 becomes temperature 1 and top-k 1."""
    greedy = s.temperature == 0
    return torch.where(greedy, 1.0, s.temperature), torch.where(greedy, 1, s.top_k)


def _seeds(s: SamplingBatch, seeded: Tensor) -> Tensor:
    return torch.where(seeded, s.seed, UNSEEDED)


def _interpreted_hash(kernel: Any, seed: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
    """murmur_hash32 as on a GPU; on a CPU it calls an extension of its own."""
    n, m = len(seed), len(columns)
    hashed = torch.empty(n, m, dtype=torch.uint32)
    block = max(16, 1 << (m - 1).bit_length()) if m <= 1024 else 1024
    kernel[(n, -(-m // block))](seed, positions, columns, hashed, n, m, BLOCK_SIZE=block)
    return hashed


def _step_over_init(name: str) -> None:
    """Puts a package without its __init__ in the place of `name`, and of those under it that inventory all kernels."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations, f"{name} is there"
    root = Path(spec.submodule_search_locations[0])
    for package in ("", "kernels", "kernels/ops", "kernels/ops/speculative", "kernels/ops/sampling"):
        dotted = ".".join([name, *filter(None, package.split("/"))])
        if dotted not in sys.modules:
            module = ModuleType(dotted)
            module.__path__ = [str(root / package)]
            sys.modules[dotted] = module


def _function(path: str, name: str, constants: tuple[str, ...] = ()) -> Callable[..., Any]:
    """One function of a file of SGLang, with the constants that it names, without what the rest of the file imports."""
    source = Path(sys.modules["sglang"].__path__[0]) / path
    tree = ast.parse(source.read_text("utf-8"))

    def wanted(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return any(isinstance(t, ast.Name) and t.id in constants for t in node.targets)
        return isinstance(node, ast.FunctionDef) and node.name == name

    body = [node for node in tree.body if wanted(node)]
    space: dict[str, Any] = {"torch": torch}
    exec("from typing import *", space)
    exec(compile(ast.Module(body, []), str(source), "exec"), space)
    return space[name]
