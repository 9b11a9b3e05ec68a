"""Our drafter and verifier under a toy model, with the V2 runner's own states and batches, thousands of requests fast.

The toy's next token depends on the last one alone, so the law of what comes out is known exactly. The steps do what a
scheduler may do: batches in any order, requests that sit out steps, fewer drafts than there are, prompts in chunks,
slots that change hands, requests taken out and resumed elsewhere, placeholders for drafts that nobody proposed.

Runs in a process of its own (interpreter.py): `main` takes a list of cases, and prints a list of their Results as JSON.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

V, N, SLOTS = 7, 3, 24
LENGTH = 5  # output tokens of a request that are compared
STARTS = 2  # the token that the prompt ends with


@dataclass
class Case:
    method: str = "token"
    fault: str | None = None
    requests: int = 2500
    places: int | None = None  # bound on kept requests
    draft_scale: float | None = None  # the head's stored one, at all temperatures; those of some requests go on from it
    settings: dict[str, Any] = field(default_factory=dict)  # SamplingParams


@dataclass
class Result:
    outputs: list[list[int]]
    first: list[int]  # the token each prompt ends with
    accepted: int
    drafts: int
    lost: int
    unfinished_emitted: int  # tokens that came out of chunks before a prompt's last one
    draft_scales: list[float]  # at the end, DraftScales.values


@dataclass
class Request:
    tokens: list[int]  # prompt and output
    prompt: int
    slot: int = -1
    computed: int = 0
    proposed: int = 0
    placeholders: int = 0
    doomed: bool = False  # will be broken off; known beforehand, so that those that stay are no selection


def tables() -> tuple[Tensor, Tensor]:
    """float32 [V, V] each: logits of the target and of the draft, by the last token."""
    g = torch.Generator().manual_seed(5)
    target = torch.randn(V, V, generator=g) * 1.5
    return target, target + torch.randn(V, V, generator=g)


class ToySpeculator:
    """Hidden states are the last tokens."""

    model = None

    def __init__(self, table: Tensor):
        self._table = table

    def sample_draft(self, hidden_states: Tensor, sample_src_positions: Tensor) -> Tensor:
        raise AssertionError("the drafter stands in its place, and asks for its parameters' names")

    def compute_draft_logits(self, hidden_states: Tensor, step: int) -> Tensor:
        return self._table[hidden_states]


class Toy:
    """One case's runner: vLLM's RequestState and Sampler, ours around them."""

    def __init__(self, case: Case):
        from vllm.v1.worker.gpu.input_batch import InputBuffers
        from vllm.v1.worker.gpu.sample.sampler import Sampler
        from vllm.v1.worker.gpu.states import RequestState

        from specdec.config import VerifySettings
        from specdec.drafting import BUCKETS, Calibration, DraftScales, running
        from specdec.engines.vllm.requests import Admissions
        from specdec.engines.vllm.v2.drafter import Drafter
        from specdec.engines.vllm.v2.rows import DraftRows
        from specdec.engines.vllm.v2.slots import SlotTable
        from specdec.engines.vllm.v2.verifier import Verifier

        device = torch.device("cpu")
        self.case, self.random = case, Random(3)
        self.target, draft = tables()
        self.states = RequestState(SLOTS, 64, 512, N, V, device)
        self.buffers = InputBuffers(SLOTS, 512, device)
        self.slots = SlotTable(Admissions(1, V), SLOTS, device)
        self.rows = DraftRows(SLOTS, N, V, torch.float32, device, case.places)
        scales = None
        running.EVERY = 2  # or these few steps would not move a scale
        if case.draft_scale is not None:
            scales = DraftScales(Calibration((case.draft_scale,) * len(BUCKETS)), device, follow=True)
        self.scales = scales
        self.drafter = Drafter(ToySpeculator(draft), self.slots, self.rows, "auto", scales)
        sampler = Sampler(SimpleNamespace(reasoning_config=None), SLOTS, V, device, self.states)
        settings = VerifySettings(method=case.method)
        self.verifier = Verifier(sampler, self.slots, self.rows, settings, reports=True, scales=scales)
        self.admitted = 0
        self.result = Result([], [], 0, 0, 0, 0, [])
        plant(case.fault, self)

    def admit(self, request: Request) -> None:
        """As GPUModelRunner.add_requests; every other request has a seed."""
        from vllm import SamplingParams

        self.admitted += 1
        name = str(self.admitted)
        self.states.add_request(name, request.prompt, request.tokens, request.computed, LENGTH)
        request.slot = self.states.req_id_to_index[name]
        self.states.prefill_len.copy_to_uva()
        seed = self.admitted if self.admitted % 2 else None
        self.verifier.add_request(request.slot, SamplingParams(**self.case.settings, seed=seed))

    def remove(self, request: Request) -> None:
        self.states.remove_request(self.states.index_to_req_id[request.slot])
        request.slot, request.proposed = -1, 0

    def run(self) -> Result:
        waiting = [self._new() for _ in range(self.case.requests)]
        running: list[Request] = []
        while waiting or running:
            while waiting and len(running) < SLOTS:
                running.append(waiting.pop())
                self.admit(running[-1])
            self.verifier.apply_staged_writes()
            self.step([r for r in running if self.random.random() < 0.8])
            running = [r for r in running if not self._over(r, waiting)]
        if self.scales is not None:
            self.result.draft_scales = self.scales.values.tolist()
        return self.result

    def _new(self) -> Request:
        first = self.random.randrange(STARTS)
        request = Request([0, 0, first], 3, doomed=self.random.random() < 0.1)
        if self.random.random() < 0.2:  # its cache came from elsewhere
            request.computed, request.placeholders = 2, N
        return request

    def _over(self, request: Request, waiting: list[Request]) -> bool:
        """Ended, or taken out for now, or broken off."""
        if len(request.tokens) - request.prompt >= LENGTH:
            if not request.doomed:
                self.result.outputs.append(request.tokens[request.prompt :][:LENGTH])
                self.result.first.append(request.tokens[request.prompt - 1])
            self.remove(request)
            return True
        if self.random.random() < (0.3 if request.doomed else 0.03):
            self.remove(request)
            if not request.doomed:
                request.computed = request.placeholders = 0
                waiting.append(request)
            return True
        return False

    def step(self, batch: list[Request]) -> None:
        if not batch:
            return
        self.random.shuffle(batch)
        scheduled, counts = [], []
        for request in batch:
            left = len(request.tokens) - request.computed
            drafts = (request.placeholders or request.proposed) if left == 1 else 0
            counts.append(self.random.choice([drafts, drafts, self.random.randint(0, drafts)]))
            scheduled.append(self.random.randint(1, left) if left > 1 else 1)
        out = self.verifier(*self._inputs(batch, scheduled, counts))
        figures = self.verifier.take_figures()
        assert figures is not None
        self.result.lost += figures.landed().lost
        for b, request in enumerate(batch):
            emitted = int(out.num_sampled[b])
            unfinished = request.computed + scheduled[b] < len(request.tokens)
            self.result.unfinished_emitted += emitted if unfinished else 0
            if not request.placeholders and not unfinished:
                self.result.drafts += counts[b]
                self.result.accepted += emitted - 1
            assert int(out.num_rejected[b]) == (0 if unfinished else counts[b] + 1 - emitted)
            request.tokens += out.sampled_token_ids[b, :emitted].tolist()
            request.computed += scheduled[b] if unfinished else scheduled[b] + emitted - 1
            request.placeholders = 0
        self._propose(batch)

    def _inputs(self, batch: list[Request], scheduled: list[int], counts: list[int]) -> tuple[Tensor, Any]:
        """Logits and InputBatch, laid out as GPUModelRunner.prepare_inputs does."""
        from vllm.v1.worker.gpu.input_batch import InputBatch

        lengths = [s + c for s, c in zip(scheduled, counts, strict=True)]
        ids, positions, seq_lens = [], [], []
        for request, n, c in zip(batch, scheduled, counts, strict=True):
            drafts = self.states.draft_tokens[request.slot, :c].tolist()
            ids += request.tokens[request.computed : request.computed + n] + drafts
            positions += range(request.computed, request.computed + n + c)
            seq_lens.append(request.computed + n + c)
        rows = np.asarray(counts) + 1
        ends, first = np.cumsum(lengths), np.concatenate([[0], np.cumsum(rows)])
        slots = np.asarray([r.slot for r in batch])
        at = np.concatenate([np.arange(e - r, e) for e, r in zip(ends, rows, strict=True)])
        made = InputBatch.make_dummy(len(batch), sum(lengths), self.buffers)
        inputs = replace(
            made,
            req_ids=[self.states.index_to_req_id[s] for s in slots],
            idx_mapping=torch.from_numpy(slots),
            idx_mapping_np=slots,
            expanded_idx_mapping=torch.from_numpy(np.repeat(slots, rows)),
            expanded_local_pos=torch.from_numpy(np.concatenate([np.arange(r, dtype=np.int32) for r in rows])),
            num_draft_tokens=sum(counts),
            num_draft_tokens_per_req=np.asarray(counts) if sum(counts) else None,
            seq_lens=torch.tensor(seq_lens, dtype=torch.int32),
            input_ids=torch.tensor(ids, dtype=torch.int32),
            positions=torch.tensor(positions),
            logits_indices=torch.from_numpy(at),
            cu_num_logits=torch.from_numpy(first.astype(np.int32)),
            cu_num_logits_np=first.astype(np.int32),
        )
        return self.target[inputs.input_ids[inputs.logits_indices].long()], inputs

    def _propose(self, batch: list[Request]) -> None:
        slots = torch.tensor([r.slot for r in batch])
        last = torch.tensor([r.tokens[min(r.computed, len(r.tokens) - 1)] for r in batch])
        positions = torch.tensor([r.computed for r in batch])
        padding = torch.full((2,), -1)  # as in a CUDA graph of a larger batch
        for step in range(N):
            hidden, at = torch.cat([last, padding.abs()]), torch.cat([positions + step, padding.abs()])
            drawn = self.drafter.sample(
                hidden, at, torch.cat([slots, padding]), at, at, torch.tensor(step), self.rows.logits
            )
            last = drawn[: len(batch)]
            self.states.draft_tokens[slots, step] = last
        for request in batch:
            request.proposed = N if request.computed + 1 == len(request.tokens) else 0


def plant(fault: str | None, toy: Toy) -> None:
    """Faults in the glue, which the test of the law must catch."""
    if fault == "rows by place in the batch":
        toy.rows._place = lambda slots: torch.unique_consecutive(slots, return_inverse=True)[1]
        toy.rows.find = lambda slots, step, position: toy.rows._place(slots) * N + step
    if fault == "one number for all drafts":
        sampling = toy.slots.sampling
        toy.slots.sampling = lambda slots, position: sampling(slots, position & (2**32 - 1))
    if fault == "rows kept as they were before they were scaled":
        write, scale = toy.rows.write, toy.case.draft_scale
        toy.rows.write = lambda slots, step, at, logits, stats: write(slots, step, at, logits / scale, stats)
    if fault == "rows of an earlier step":
        toy.rows.write = _every_other_call(toy.rows.write)
        toy.rows.find = lambda slots, step, position: (SLOTS - 1 - slots) * N + step


def _every_other_call(write: Any) -> Any:
    calls = [0]

    def sometimes(*args: Any) -> None:
        calls[0] += 1
        if (calls[0] // N) % 2:
            write(*args)

    return sometimes


def main(cases: list[dict[str, Any]]) -> None:
    import vllm.v1.worker.cpu.shm  # noqa: F401 - as the CPU's V2 runner: streams and pinned memory are nothing there

    print(json.dumps([asdict(Toy(Case(**case)).run()) for case in cases]))
