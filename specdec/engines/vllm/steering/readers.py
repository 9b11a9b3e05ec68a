"""In the worker: what a step's requests read. Their rows are noted before the forward pass, encoded after it.

A step decides a request's tokens from its last rows, one more than it has drafts; which of them stay, the scheduler
finds out. Prompts come in chunks, and are pooled here as they come.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.engines.vllm.api.carried import read_of
from specdec.engines.vllm.steering.layers import CHUNK, SteeredLayer
from specdec.steering.reading import Read
from specdec.steering.sae import SAE
from specdec.upload import to_device


class PromptPool:
    """A prompt's maxima, and how many times each feature was active: [n] of the chosen, or under "top" [s] of all."""

    def __init__(self, read: Read, count: int, device: torch.device) -> None:
        self._k = read.top
        size = read.width if read.top is None else count
        self.max, self.active = torch.zeros(size, device=device), torch.zeros(size, device=device)
        self.done = 0  # positions

    def extend(self, rows: Tensor) -> None:
        """rows [positions, n], or [positions, 2 k] as `Readers._encoded` gives them."""
        if self._k is None:
            self.max = torch.maximum(self.max, rows.amax(0))
            self.active += (rows > 0).sum(0)
            return
        ids, values = (half.reshape(-1) for half in rows.split(self._k, dim=1))
        self.max.scatter_reduce_(0, ids.long(), values, "amax")
        self.active.scatter_add_(0, ids.long(), (values > 0).float())

    def packed(self) -> Tensor:
        """[2, n]: maxima, times active; or [3, k], of the largest maxima, with their ids first."""
        if self._k is None:
            return torch.stack([self.max, self.active])
        most, ids = self.max.topk(self._k)
        return torch.stack([ids.float(), most, self.active[ids]])


@dataclass(frozen=True, eq=False)
class _Reader:
    """One request of a step: so many rows of its prompt, then so many that its tokens are sampled from."""

    request_id: str
    read: Read
    prompt_rows: int
    rows: int
    pool: PromptPool | None
    prompt_tokens: int  # where this step ends the prompt and that was asked for, else 0

    @property
    def row_width(self) -> int:
        """Numbers of a row: activations, under "top" the ids as well."""
        return self.read.width * (1 if self.read.top is None else 2)

    @property
    def pool_size(self) -> int:
        """Numbers of `PromptPool.packed`."""
        return self.read.width * (2 if self.read.top is None else 3)


@dataclass(frozen=True, eq=False)
class Found:
    """A step's readings, float32 one behind the other; on the host once the step's output is."""

    readers: list[_Reader]
    on_host: Tensor

    def entries(self) -> dict[str, dict[str, Any]]:
        """By request: {"rows": bytes, "width": numbers of a row}; at a prompt's end "prompt", bytes, and "tokens".

        Collector.take reads the bytes.
        """
        numbers, at = self.on_host.numpy(), 0
        entries: dict[str, dict[str, Any]] = {}
        for reader in self.readers:
            width, size = reader.row_width, reader.rows * reader.row_width
            entry = entries[reader.request_id] = {"rows": numbers[at : at + size].tobytes(), "width": width}
            at += size
            if reader.prompt_tokens:
                entry |= {"prompt": numbers[at : at + reader.pool_size].tobytes(), "tokens": reader.prompt_tokens}
                at += reader.pool_size
        return entries


class Readers:
    """saes: on the device, by name; layers: by number."""

    def __init__(self, saes: Mapping[str, SAE], layers: Mapping[int, SteeredLayer], device: torch.device) -> None:
        self._saes, self._layers, self._device = saes, layers, device
        self._drafts: dict[str, int] = {}
        self._pools: dict[str, PromptPool] = {}
        self._ids: dict[tuple[int, ...], Tensor] = {}
        self._step: dict[int, list[list[_Reader]]] = {}  # by layer; those in a list read the same

    def begin(self, scheduled: Any) -> None:
        """scheduled: the SchedulerOutput of the step to come."""
        self._drafts = {name: len(drafts) for name, drafts in scheduled.scheduled_spec_decode_tokens.items()}
        for request_id in scheduled.preempted_req_ids or ():  # its prompt comes again, from the start
            self._pools.pop(request_id, None)

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._pools.pop(request_id, None)

    def prepare(
        self, request_ids: Sequence[str], params: Sequence[object], prompt_lengths: Sequence[int], counts: np.ndarray
    ) -> None:
        """Before the forward pass of a step with counts[b] rows of each request."""
        self._step = {}
        reads = [read_of(one) for one in params]
        if not any(reads):
            return
        rows: dict[Read, list[np.ndarray]] = {}
        readers: dict[Read, list[_Reader]] = {}
        ends = np.cumsum(counts)
        for request_id, read, length, count, end in zip(
            request_ids, reads, prompt_lengths, counts.tolist(), ends.tolist(), strict=True
        ):
            if read is None:
                continue
            reader = self._reader(request_id, read, length, count)
            shared = read.model_copy(update={"prompt": False})
            readers.setdefault(shared, []).append(reader)
            begin = end - count
            rows.setdefault(shared, []).extend(
                [np.arange(begin, begin + reader.prompt_rows), np.arange(end - reader.rows, end)]
            )
        for number, layer in self._layers.items():
            here = [read for read in readers if self._saes[read.sae or ""].layer == number]
            if here:
                self._step[number] = [readers[read] for read in here]
                watched = np.concatenate([part for read in here for part in rows[read]])
                layer.watch(to_device(torch.from_numpy(watched), self._device))

    def _reader(self, request_id: str, read: Read, length: int, count: int) -> _Reader:
        rows = min(self._drafts.get(request_id, 0) + 1, count)
        if not read.prompt:
            return _Reader(request_id, read, 0, rows, None, 0)
        pool = self._pools.get(request_id)
        if pool is None:
            pool = self._pools[request_id] = PromptPool(read, self._saes[read.sae or ""].num_features, self._device)
        prompt_rows = min(count, length - pool.done)
        pool.done += prompt_rows
        ends_here = prompt_rows > 0 and pool.done == length
        return _Reader(request_id, read, prompt_rows, rows, pool, length if ends_here else 0)

    @torch.inference_mode()
    def finish(self) -> Found | None:
        """After the forward pass: starts the copy of what was read; None where nobody reads."""
        step, self._step = self._step, {}
        if not step:
            return None
        readers: list[_Reader] = []
        parts: list[Tensor] = []
        for number, groups in step.items():
            stream = self._layers[number].watched()
            for group in groups:
                mine, stream = _split(stream, sum(reader.prompt_rows + reader.rows for reader in group))
                encoded = self._encoded(mine, group[0].read)
                for reader in group:
                    of_prompt, encoded = _split(encoded, reader.prompt_rows)
                    rows, encoded = _split(encoded, reader.rows)
                    parts += [rows, *_pooled(reader, of_prompt)]
                readers += group
        return Found(readers, torch.cat([part.reshape(-1) for part in parts]).to("cpu", non_blocking=True))

    def _encoded(self, stream: Tensor, read: Read) -> Tensor:
        """Activations of stream [rows, d]: float32 [rows, n], or [rows, 2 k], ids (exact below 2^24) and values."""
        sae = self._saes[read.sae or ""]
        if read.features is not None:
            ids = self._on_device(read.features)
            if not sae.activation.needs_all:
                return sae.encode_features(stream, ids)
            return _in_parts(stream, sae, lambda x: sae.encode_features(x, ids))
        return _in_parts(stream, sae, lambda x: _largest(sae.encode(x), read.width))

    def _on_device(self, features: tuple[int, ...]) -> Tensor:
        if features not in self._ids:
            if len(self._ids) >= 4096:
                self._ids.clear()
            self._ids[features] = to_device(torch.tensor(features), self._device)
        return self._ids[features]


def _pooled(reader: _Reader, rows: Tensor) -> list[Tensor]:
    """What goes out of the prompt's pool once rows, those of this step, are in it."""
    if reader.pool is None or not len(rows):
        return []
    reader.pool.extend(rows)
    return [reader.pool.packed()] if reader.prompt_tokens else []


def _in_parts(stream: Tensor, sae: SAE, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """encode(stream), so many rows at once that all their activations are CHUNK numbers at most."""
    at_once = max(1, CHUNK // sae.num_features)
    return torch.cat([encode(part) for part in stream.split(at_once)])


def _largest(activations: Tensor, k: int) -> Tensor:
    values, ids = activations.topk(k, dim=-1)
    return torch.cat([ids.float(), values.float()], dim=-1)


def _split(tensor: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return tensor[:count], tensor[count:]
