"""Steps for the V2 verifier, around vLLM's own RequestState and Sampler, on a device without vLLM's kernels."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.states import RequestState

from specdec.engines.vllm.requests import Admissions
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable
from specdec.engines.vllm.v2.verifier import Verifier

SLOTS, N, V = 8, 3, 50
PREFILL = 4


def request_states(device: torch.device) -> RequestState:
    states = RequestState(SLOTS, 64, 512, N, V, device)
    states.prefill_len.gpu = torch.full((SLOTS,), PREFILL, dtype=torch.int32, device=device)
    return states


def verifier_of(
    states: RequestState, params: list[SamplingParams], method: str = "token", backend: str = "auto"
) -> Verifier:
    """Request i sits in slot i."""
    slots = SlotTable(Admissions(0, V), SLOTS, states.device)
    rows = DraftRows(SLOTS, N, V, torch.float32, states.device)
    sampler = Sampler(SimpleNamespace(reasoning_config=None), SLOTS, V, states.device, states)
    settings: Any = SimpleNamespace(method=method, backend=backend)
    made = Verifier(sampler, slots, rows, settings, reports=states.device.type == "cpu")
    for slot, each in enumerate(params):
        made.add_request(slot, each)
    made.apply_staged_writes()
    return made


def step_of(slots: list[int], counts: list[int], drafts: list[int], begins: list[int], device: str) -> Any:
    """The part of InputBatch that is read. Request b has counts[b] of the drafts, behind one token at begins[b] - 1."""

    def on(values: Any, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=dtype).to(device)

    rows = np.asarray(counts) + 1
    local = np.concatenate([np.arange(n) for n in rows])
    ids = np.zeros(len(local), dtype=np.int64)
    ids[local > 0] = drafts
    ends = np.cumsum(rows)
    return SimpleNamespace(
        req_ids=[f"request-{slot}" for slot in slots],
        num_reqs=len(slots),
        num_draft_tokens_per_req=np.asarray(counts) if sum(counts) else None,
        idx_mapping=on(slots),
        idx_mapping_np=np.asarray(slots),
        expanded_idx_mapping=on(np.repeat(slots, rows)),
        expanded_local_pos=on(local, torch.int32),
        seq_lens=on(np.asarray(begins) + counts, torch.int32),
        seq_lens_cpu_upper_bound=torch.tensor(np.asarray(begins) + counts, dtype=torch.int32),
        input_ids=on(ids, torch.int32),
        positions=on(np.repeat(np.asarray(begins) - 1, rows) + local),
        logits_indices=on(np.arange(len(local))),
        cu_num_logits=on([0, *ends], torch.int32),
        cu_num_logits_np=np.asarray([0, *ends]),
    )
