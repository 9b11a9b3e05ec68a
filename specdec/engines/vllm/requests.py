"""What each request asked of sampling, as the tensors that verify and sample_draft take."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from specdec.drafting import DraftScales
from specdec.engines.vllm.api.carried import request_of
from specdec.sampling import SamplingBatch
from specdec.upload import to_device


@dataclass(frozen=True, eq=False)  # compared by identity: rows are made once per request
class RequestSampling:
    """One request's settings; top_k 0, top_p 1 and min_p 0 mean off, temperature 0 greedy; seed is 64 bits, signed."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    draft_place: int  # where its draft scale stands: DraftScales.place
    has_grammar: bool
    figures: bool  # whether its answer is to hold its acceptance figures
    tenant: str  # the label that it is counted under; "": none
    params: Any  # the engine's own object: a streaming request may get another one under the same id


class Admissions:
    """Reads the settings of requests as they come in.

    engine_seed, replica: mixed into the seeds of requests that bring none; replica is which of a data-parallel server's
    engines this is. Those seeds follow from (engine seed, replica, order of admission), which all tensor-parallel ranks
    see alike, so every rank draws the same tokens without talking to the others; two requests never share a stream,
    whatever replica they are in. An engine started with the same seed repeats itself, as vLLM does.
    """

    def __init__(self, engine_seed: int, vocab_size: int, replica: int = 0):
        self._engine_seed, self._vocab_size, self._replica = engine_seed, vocab_size, replica
        self._admitted = 0

    def read(self, params: Any) -> RequestSampling:
        """params: the engine's SamplingParams of a request that has not been read before."""
        self._admitted += 1
        top_k = params.top_k if 0 < params.top_k < self._vocab_size else 0
        seeded, asked = params.seed is not None, request_of(params)
        return RequestSampling(
            temperature=params.temperature,
            top_k=top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            seed=_signed64(params.seed) if seeded else self._fresh_seed(),
            draft_place=DraftScales.place(params.temperature, top_k, params.top_p, params.min_p, seeded),
            has_grammar=params.structured_outputs is not None,
            figures=asked is not None and asked.figures,
            tenant=(asked.tenant if asked is not None else None) or "",
            params=params,
        )

    def _fresh_seed(self) -> int:
        source = f"{self._engine_seed}/{self._replica}/{self._admitted}"
        digest = hashlib.blake2b(source.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


class RequestTable:
    """Sampling parameters by request id, and the batch tensors made of them. For the V1 runner."""

    def __init__(self, admissions: Admissions, device: torch.device):
        self._admissions, self._device = admissions, device
        self._known: dict[str, RequestSampling] = {}
        self._rows: list[RequestSampling] = []
        self.with_grammar: set[str] = set()  # of the last batch
        self.draft_places = torch.zeros(0, dtype=torch.int64, device=device)  # likewise, [B]
        self.asking: tuple[int, ...] = ()  # likewise, see figures.Batch
        self.tenants: tuple[str, ...] | None = None  # likewise
        self._batch: SamplingBatch | None = None

    def forget(self, request_id: str) -> None:
        self._known.pop(request_id, None)  # the id may come back with other parameters

    def batch(self, request_ids: list[str], requests: Any, position: torch.Tensor) -> SamplingBatch:
        """SamplingBatch [B] of these requests; position [B] int64: absolute index of the first token decided.

        requests: the runner's table, request id -> state with `sampling_params`.
        """
        rows = [self._lookup(i, requests) for i in request_ids]
        if self._batch is None or self._rows != rows:
            self._batch = SamplingBatch(
                temperature=self._column([r.temperature for r in rows], torch.float32),
                top_k=self._column([r.top_k for r in rows], torch.int32),
                top_p=self._column([r.top_p for r in rows], torch.float32),
                min_p=self._column([r.min_p for r in rows], torch.float32),
                seed=self._column([r.seed for r in rows], torch.int64),
                position=position,
            )
            self.draft_places = self._column([r.draft_place for r in rows], torch.int64)
            self.asking, self.tenants = places_of(rows)
            self._rows = rows
            self.with_grammar = {i for i, r in zip(request_ids, rows, strict=True) if r.has_grammar}
        self._batch.position = position
        return self._batch

    def _column(self, values: list, dtype: torch.dtype) -> torch.Tensor:
        return to_device(torch.tensor(values, dtype=dtype), self._device)

    def _lookup(self, request_id: str, requests: Any) -> RequestSampling:
        known, params = self._known.get(request_id), requests[request_id].sampling_params
        if known is None or known.params is not params:
            known = self._known[request_id] = self._admissions.read(params)
        return known


def places_of(asks: Sequence[Any]) -> tuple[tuple[int, ...], tuple[str, ...] | None]:
    """figures.Batch's asking and tenants, of requests with `figures` and `tenant` each."""
    asking = tuple(place for place, ask in enumerate(asks) if ask.figures)
    tenants = tuple(ask.tenant for ask in asks)
    return asking, tenants if any(tenants) else None


def _signed64(seed: int) -> int:
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)
