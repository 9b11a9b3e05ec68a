"""The triton backend: launches kernels/triton/ on the current stream of the tensors' GPU.

A verify step takes four launches, and two more where draft rows come without statistics; nothing waits for the device
but the check of "raise". Beside the outputs it takes 8.5 KB of scratch per target row of V = 151,936 tokens, 2.8 % of
a bf16 row: 3.7 KB of statistics, and 4.8 KB that first hold the tokens among which a threshold is searched, then the
sums to draw from. Draft rows without statistics take as much each, the expected acceptance 2.4 KB per target row.

Without a GPU it runs on CPU tensors in Triton's interpreter, if TRITON_INTERPRET=1 was set before triton was first
imported: for tests. "auto" never chooses that.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from specdec.kernels.triton import launches
from specdec.kernels.triton.rows import NUM_FACTS
from specdec.sampling import SamplingBatch
from specdec.verify.checks import check_sampling
from specdec.verify.device_step import DeviceStep, begin, check_drawn, end
from specdec.verify.reference import draft_purpose
from specdec.verify.types import NUM_STATS, OnBadRow, VerifyInput, VerifyOutput

TILE = 512  # logits: the finest piece of a row of which statistics are kept
GROUP = 8  # tiles that a program takes at once
CAPACITY = 1024  # tokens among which a threshold is searched without reading the row again

# Bits of a float32 key that logits of a type leave empty (kernels/triton/logits.py).
_SHIFT = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
_MANY_WARPS, _FEW_WARPS = 8, 4


def problem() -> str | None:
    return None if torch.cuda.is_available() or interpreted() else "there is no GPU"


def interpreted() -> bool:
    """Whether triton was imported as an interpreter: kernels then run on CPU tensors, slowly."""
    return isinstance(tl.zeros, InterpretedFunction)


def accepts(device: torch.device) -> bool:
    return device.type == ("cpu" if interpreted() else "cuda")


def verify_token(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return _verify(given, block=False)


def verify_block(given: VerifyInput) -> VerifyOutput:
    """See specdec.verify.verify."""
    return _verify(given, block=True)


def sample_draft(logits: Tensor, sampling: SamplingBatch, step: int, on_bad_row: OnBadRow) -> tuple[Tensor, Tensor]:
    """See specdec.verify.sample_draft."""
    if on_bad_row == "raise":
        check_sampling(sampling)
    batch, device = len(sampling), logits.device
    tokens = torch.empty(batch, dtype=torch.int32, device=device)
    stats = torch.empty((batch, NUM_STATS), dtype=torch.float64, device=device)
    bad = torch.empty(batch, dtype=torch.int32, device=device)
    if batch:
        # Each request is a verify step of its bonus row alone.
        rows = torch.arange(batch + 1, dtype=torch.int32, device=device)
        plan = _Plan.of(logits, rows, rows, sampling, slots=batch)
        with _on(device):
            _statistics(plan, logits, tokens, bad_is_point=True)
            _residuals(plan, logits, None, None, most_drafts=0, block=False)
            launches.emit_draft[(batch,)](
                logits, sampling.temperature, sampling.seed, sampling.position, plan.facts, plan.scratch,
                tokens, stats, bad, draft_purpose(step), plan.scratch.stride(0), logits.stride(0), plan.vocab,
                plan.tiles, TILE=TILE, TILES=_power_of_2(plan.tiles), num_warps=_FEW_WARPS,
            )  # fmt: skip
    if on_bad_row == "raise":
        check_drawn(bad)
    return tokens, stats


@dataclass(slots=True)
class _Plan:
    """The step's shape and sizes, and scratch for `slots` rows: kernels/triton/rows.py says which row has which."""

    first_row: Tensor
    request_of_row: Tensor
    sampling: SamplingBatch
    num_rows: int  # of the target
    num_draft_rows: int  # R; 0: all drafts are one-hot
    vocab: int
    tiles: int
    group: int  # tiles of a group
    groups: int
    capacity: int
    tile_max: Tensor  # float32 [slots, tiles]
    tile_sum: Tensor  # float64 [slots, tiles]
    group_bad: Tensor  # int32 [slots, groups]
    facts: Tensor  # float64 [slots, NUM_FACTS]
    scratch: Tensor  # float64 [slots, max(2 tiles, what CAPACITY logits and the list of tiles take)]

    @classmethod
    def of(
        cls,
        target: Tensor,
        first_row: Tensor,
        request_of_row: Tensor,
        sampling: SamplingBatch,
        slots: int,
        num_draft_rows: int = 0,
    ) -> "_Plan":
        num_rows, vocab = target.shape
        tiles = -(-vocab // TILE)
        group = min(GROUP, _power_of_2(tiles))
        groups = -(-tiles // group)
        capacity = min(CAPACITY, _power_of_2(vocab))
        search = -(-(4 * capacity + 2 * tiles) // 8)

        def empty(width: int, dtype: torch.dtype) -> Tensor:
            return torch.empty((slots, width), dtype=dtype, device=target.device)

        return cls(
            first_row, request_of_row, sampling, num_rows, num_draft_rows, vocab, tiles, group, groups, capacity,
            tile_max=empty(tiles, torch.float32),
            tile_sum=empty(tiles, torch.float64),
            group_bad=empty(groups, torch.int32),
            facts=empty(NUM_FACTS.value, torch.float64),
            scratch=empty(max(2 * tiles, search), torch.float64),
        )  # fmt: skip


def _verify(given: VerifyInput, block: bool) -> VerifyOutput:
    step = begin(given)
    if step.batch:
        _launch(step, block)
    return end(step, given.on_bad_row)


def _launch(step: DeviceStep, block: bool) -> None:
    num_rows, num_drafts = step.target.shape[0], step.token_ids.shape[0]
    ids, q, q_rows, q_stats = step.token_ids, step.draft_logits, step.draft_rows, step.draft_stats
    without_stats = q is not None and q_stats is None and num_drafts > 0
    slots = num_rows + num_drafts if without_stats else num_rows
    num_draft_rows = 0 if q is None else q.shape[0]
    plan = _Plan.of(step.target, step.first_row, step.request_of_row, step.sampling, slots, num_draft_rows)
    overlap = None
    if step.alpha is not None:
        overlap = torch.empty((num_rows, plan.tiles), dtype=torch.float64, device=step.target.device)
    with _on(step.target.device):
        if q is not None and without_stats:
            _statistics(plan, q, ids, q_rows, is_draft=True)
        _statistics(plan, step.target, ids, q_rows, q_stats)
        _residuals(plan, step.target, q, overlap, step.most_drafts, block)
        launches.emit[(step.batch,)](
            step.target, q, step.first_row, step.sampling.seed, step.sampling.position, plan.facts, plan.scratch,
            overlap, step.tokens, step.accepted, step.bad_row, step.probability, step.alpha, step.tokens.stride(0),
            plan.scratch.stride(0), step.target.stride(0), _stride(q), plan.vocab, plan.tiles,
            BLOCK=block, DRAFTS=_drafts(step.most_drafts), TILE=TILE, TILES=_power_of_2(plan.tiles),
            num_warps=_FEW_WARPS,
        )  # fmt: skip


def _statistics(
    plan: _Plan,
    logits: Tensor,
    token_ids: Tensor,
    draft_rows: Tensor | None = None,
    draft_stats: Tensor | None = None,
    is_draft: bool = False,
    bad_is_point: bool = False,
) -> None:
    """Launches 1 and 2, of the target's rows, or with is_draft of the drafts' rows."""
    s, tile_stats = plan.sampling, (plan.tile_max, plan.tile_sum, plan.group_bad)
    sizes = logits.stride(0), plan.num_rows, plan.num_draft_rows, plan.vocab, plan.tiles, plan.groups
    launches.tile_statistics[(plan.num_rows * plan.groups,)](
        logits, draft_rows, plan.first_row, plan.request_of_row, s.temperature, *tile_stats, *sizes,
        IS_DRAFT=is_draft, TILE=TILE, GROUP=plan.group, num_warps=_FEW_WARPS,
    )  # fmt: skip
    launches.row_statistics[(plan.num_rows,)](
        logits, draft_rows, draft_stats, token_ids, plan.first_row, plan.request_of_row,
        s.temperature, s.top_k, s.top_p, s.min_p, s.seed, s.position,
        *tile_stats, plan.facts, plan.scratch, plan.scratch.stride(0), *sizes,
        IS_DRAFT=is_draft, HAS_ROWS=plan.num_draft_rows > 0, BAD_IS_POINT=bad_is_point, TILE=TILE, GROUP=plan.group,
        TILES=_power_of_2(plan.tiles), GROUPS=_power_of_2(plan.groups), CAPACITY=plan.capacity,
        SHIFT=_SHIFT[logits.dtype], num_warps=_MANY_WARPS,
    )  # fmt: skip


def _residuals(
    plan: _Plan, target: Tensor, draft_logits: Tensor | None, overlap: Tensor | None, most_drafts: int, block: bool
) -> None:
    """Launch 3."""
    launches.tile_residuals[(plan.num_rows * plan.groups,)](
        target, draft_logits, plan.first_row, plan.request_of_row, plan.tile_max, plan.tile_sum, plan.facts,
        plan.scratch, overlap, plan.scratch.stride(0), target.stride(0), _stride(draft_logits),
        plan.vocab, plan.tiles, plan.groups,
        BLOCK=block, DRAFTS=_drafts(most_drafts), TILE=TILE, GROUP=plan.group, num_warps=_MANY_WARPS,
    )  # fmt: skip


def _stride(logits: Tensor | None) -> int:
    return 0 if logits is None else logits.stride(0)


def _drafts(most_drafts: int) -> int:
    """Width of a kernel's row of drafts: one for nearly all steps, as each is compiled for itself."""
    return max(8, _power_of_2(most_drafts))


def _power_of_2(n: int) -> int:
    """The lowest that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
