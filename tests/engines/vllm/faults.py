"""Faults to plant in the verify step of a real engine: the lossless test must catch each of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from specdec.engines.vllm import verifier
from specdec.sampling import filtered_logits
from specdec.verify import Draft, verify


def _q_at_another_temperature(target: torch.Tensor, draft: Draft, sampling: Any, **how: Any) -> Any:
    """The ratio is taken with draft rows half again as hot as those that sampled the tokens."""
    if draft.logits is not None:
        draft = replace(draft, logits=draft.logits / 1.5, row_stats=None)
    return verify(target, draft, sampling, **how)


def _recovered_from_p(target: torch.Tensor, draft: Draft, sampling: Any, **how: Any) -> Any:
    """After a rejection the token is drawn from p instead of from max(p - q, 0)."""
    out = verify(target, draft, sampling, **how)
    counts = torch.as_tensor(draft.num_per_request)
    starts = (counts + 1).cumsum(0) - counts - 1
    for b in range(len(counts)):
        accepted = int(out.num_accepted[b])
        if accepted < int(counts[b]):
            row = target[starts[b] + accepted][None]
            settings = [x[b : b + 1] for x in (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)]
            p = filtered_logits(row, *settings).softmax(-1)
            out.token_ids[b, accepted] = torch.multinomial(p, 1)[0, 0]
    return out


def _bonus_unfiltered(target: torch.Tensor, draft: Draft, sampling: Any, **how: Any) -> Any:
    """The bonus row is sampled with the temperature alone, its top-k and top-p forgotten."""
    out = verify(target, draft, sampling, **how)
    counts = torch.as_tensor(draft.num_per_request)
    ends = (counts + 1).cumsum(0) - 1
    for b in range(len(counts)):
        if int(counts[b]) and int(out.num_accepted[b]) == int(counts[b]):
            p = (target[ends[b]].float() / sampling.temperature[b]).softmax(-1)
            out.token_ids[b, int(counts[b])] = torch.multinomial(p, 1)[0]
    return out


def _narrow_the_supported_range() -> None:
    from specdec.engines import installed

    installed.VLLM_NEWEST = (0, 31)
    installed.VLLM_RANGE = "0.26 to 0.31"


def _no_row_waits() -> None:
    from specdec.engines.vllm.waiting import WaitingRows

    WaitingRows.have_room = lambda self, request_ids, rows: False  # type: ignore[method-assign]


def _waiting_rows_are_lost() -> None:
    from specdec.engines.vllm.waiting import WaitingRows

    WaitingRows.joined = lambda self, request_ids, rows: self.clear() or rows  # type: ignore[assignment, method-assign]


FAULTS: dict[str, Callable] = {
    "q_at_another_temperature": _q_at_another_temperature,
    "recovered_from_p": _recovered_from_p,
    "bonus_unfiltered": _bonus_unfiltered,
}


ELSEWHERE: dict[str, Callable[[], None]] = {
    "unsupported_vllm": _narrow_the_supported_range,
    "no_row_waits": _no_row_waits,
    "waiting_rows_are_lost": _waiting_rows_are_lost,
}


def plant(name: str) -> None:
    if name in ELSEWHERE:
        return ELSEWHERE[name]()
    verifier.verify = FAULTS[name]
