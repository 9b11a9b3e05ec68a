"""Rows that the head has not gone over yet, because steps asked for no drafts.

The head's cache has an entry for every position, made of the target's hidden state there. A step without drafts makes
none that it needs at once. So its rows wait, one of each request, and the head goes over those of many steps together:
when drafts are asked for again, or when many have come. One pass over a few hundred rows takes little more than one
over a few.

What waits for a request that is over, or was preempted, is let go. Its blocks may be found by other requests in the
prefix cache, whose drafts then see the head's entries of up to MOST_STEPS positions as they were before: they may be
accepted less often, which is all that a head's cache can do.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdec.upload import to_device

MOST_STEPS = 16
MOST_ROWS = 2048


@dataclass(frozen=True, eq=False)
class Rows:
    """Of one step or of several, request-major: token ids [n], positions [n], the target's hidden states [n, d], and
    attention: vLLM's CommonAttentionMetadata, whose slot_mapping [n] says where the entries go.
    """

    token_ids: Tensor
    positions: Tensor
    hidden: Tensor
    attention: Any

    def __len__(self) -> int:
        return len(self.token_ids)


class WaitingRows:
    """max_rows: that the head can go over at once."""

    def __init__(self, max_rows: int) -> None:
        self._most, self._max_rows = min(max_rows, MOST_ROWS), max_rows
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._places: dict[str, list[int]] = {}  # of a request's rows in the steps' rows, one behind the other
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._steps)

    def have_room(self, request_ids: list[str], rows: Rows) -> bool:
        """Whether a step's rows may wait: one of each request, and not too many with those that do."""
        single = len(rows) == len(request_ids) == rows.attention.num_reqs
        return single and len(self._steps) < MOST_STEPS and self._count + 2 * len(rows) <= self._most

    def fit(self, rows: Rows) -> bool:
        """Whether the head can go over those that wait and a step's together."""
        return self._count + len(rows) <= self._max_rows

    def keep(self, request_ids: list[str], rows: Rows) -> None:
        """The step's rows wait."""
        slots = rows.attention.slot_mapping[: len(rows)]
        self._steps.append((rows.token_ids.clone(), rows.positions.clone(), rows.hidden.clone(), slots.clone()))
        for place, request_id in enumerate(request_ids):
            self._places.setdefault(request_id, []).append(self._count + place)
        self._count += len(rows)

    def forget(self, request_id: str) -> None:
        """The request is over, or begins anew."""
        self._places.pop(request_id, None)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._steps, self._places, self._count = [], {}, 0

    def joined(self, request_ids: list[str], rows: Rows) -> Rows:
        """The step's rows, each request's behind those that waited for it; nothing waits then."""
        bounds = rows.attention.query_start_loc_cpu[: len(request_ids) + 1].tolist()
        waited = [self._places.get(request_id, []) for request_id in request_ids]
        order = [
            place
            for mine, begin, end in zip(waited, bounds, bounds[1:], strict=False)
            for place in (*mine, *range(self._count + begin, self._count + end))
        ]
        index = to_device(torch.tensor(order), rows.token_ids.device)
        parts = zip(*self._steps, self._of_step(rows), strict=True)
        token_ids, positions, hidden, slots = (torch.cat(part)[index] for part in parts)
        counts = np.diff(bounds) + [len(mine) for mine in waited]
        self.clear()
        return Rows(token_ids, positions, hidden, _attention(rows.attention, counts, positions, slots))

    def _of_step(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return rows.token_ids, rows.positions, rows.hidden, rows.attention.slot_mapping[: len(rows)]


def _attention(attention: Any, counts: np.ndarray, positions: Tensor, slots: Tensor) -> Any:
    """The same requests with counts [B] rows each, the last of which are where they were."""
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(torch.int32)
    return replace(
        attention,
        query_start_loc=to_device(starts, slots.device),
        query_start_loc_cpu=starts,
        num_actual_tokens=int(counts.sum()),
        max_query_len=int(counts.max()),
        slot_mapping=slots,
        positions=None if attention.positions is None else positions,
        _num_computed_tokens_cache=None,
        _token_to_req_indices_cache=None,
    )
