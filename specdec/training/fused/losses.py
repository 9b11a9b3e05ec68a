"""The fused losses: the same values as specdec.training.losses on the logits, from hidden states and weights."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypedDict, Unpack, cast

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.sampling import SamplingBatch
from specdec.training.fused.function import Divergences
from specdec.training.fused.sweep import RowStep, Sides
from specdec.training.losses import LK_ETA, chain_mean, lost_by_step

BACKENDS = ("chunked", "triton")
Temperature: TypeAlias = float | Tensor
Wanted: TypeAlias = Literal["alpha", "kl"]


class Options(TypedDict, total=False):
    """See `divergences`."""

    temperature: Temperature
    filters: SamplingBatch | None
    target_rows: Tensor | None
    backend: str


def divergences(
    draft_hidden: Tensor,
    target_hidden: Tensor,
    draft_weight: Tensor,
    target_weight: Tensor | None = None,
    *,
    wanted: Sequence[Wanted] = ("alpha",),
    temperature: Temperature = 1.0,
    filters: SamplingBatch | None = None,
    target_rows: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """alpha and KL(p || q) of every row. [..., d_q], [..., d_p], [V, d_q], [V, d_p] -> [...], [...].

    target_weight: None where the head shares the target's LM head. wanted: what gradients are to flow through; alpha is
    given in any case, KL is 0 where it is not wanted. temperature: of both sides, a number or [...], above 0.
    filters: one entry per row, whose temperature stands in the place of `temperature`: what top-k, top-p and min-p drop
    of p and of q, each by itself, has probability 0. With alpha alone: KL is infinite where q drops more than p.
    target_rows [...] int64: the row of target_hidden [M, d_p] that each draft row is compared with; each is multiplied
    by W_p once per block, however many rows refer to it. backend: chunked, triton, or auto (triton on a GPU).

    Matrix products in the weights' type with float32 sums (hidden states are cast to it), the rest in float32 (all in
    float64 where that is the type); the results are float32. No gradient flows to the target. See the package for the
    formulas and the gradients.
    """
    shape = draft_hidden.shape[:-1]
    target_weight = draft_weight if target_weight is None else target_weight
    _check(draft_hidden, target_hidden, draft_weight, target_weight, target_rows)
    hidden = draft_hidden.reshape(-1, draft_hidden.shape[-1]).to(draft_weight.dtype)
    sides = Sides(
        hidden.detach(),
        draft_weight.detach(),
        target_hidden.detach().reshape(-1, target_hidden.shape[-1]).to(target_weight.dtype),
        target_weight.detach(),
        None if target_rows is None else target_rows.reshape(-1).to(hidden.device, torch.int64),
        _per_row(temperature, shape, hidden) if filters is None else filters.temperature.to(_wide(hidden))[:, None],
        filters,
    )
    step = _row_step(backend, hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        alpha, kl = Divergences.apply(hidden, draft_weight, sides, ("alpha" in wanted, "kl" in wanted), step)
    return alpha.view(shape), kl.view(shape)


class _Form(NamedTuple):
    """A loss of chains as a function of their alphas [..., K] and KL [..., K]."""

    wanted: tuple[Wanted, ...]
    loss: Callable[[Tensor, Tensor], Tensor]


def _neg_log_alpha(alpha: Tensor) -> Tensor:
    """Unlike `losses.neg_log_alpha` it knows alpha itself alone: below the smallest float it counts as that float."""
    return -alpha.clamp(min=torch.finfo(alpha.dtype).tiny).log()


def _lk_hybrid(alpha: Tensor, kl: Tensor) -> Tensor:
    weight = torch.exp(-LK_ETA * alpha.detach())
    return weight * kl + (1.0 - weight) * (1.0 - alpha)


FUSED: dict[str, _Form] = {
    "kl": _Form(("kl",), lambda alpha, kl: kl),
    "tv": _Form(("alpha",), lambda alpha, kl: 1.0 - alpha),
    "e2e-tv": _Form(("alpha",), lambda alpha, kl: lost_by_step(alpha)),
    "neg-log-alpha": _Form(("alpha",), lambda alpha, kl: _neg_log_alpha(alpha)),
    "lk-hybrid": _Form(("alpha", "kl"), _lk_hybrid),
}


def step_losses(
    name: str,
    draft_hidden: Tensor,
    target_hidden: Tensor,
    draft_weight: Tensor,
    target_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]:
    """STEP_LOSSES[name] of chains, for a name in FUSED, and their alphas. [..., K, d] ... -> [..., K], [..., K]."""
    form = FUSED[name]
    alpha, kl = divergences(draft_hidden, target_hidden, draft_weight, target_weight, wanted=form.wanted, **options)
    return form.loss(alpha, kl), alpha.detach()


def linear_tv(
    draft_hidden: Tensor,
    target_hidden: Tensor,
    draft_weight: Tensor,
    target_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """`losses.tv` from hidden states and weights; arguments as of `divergences`. [..., d] ... -> [...]."""
    return step_losses("tv", draft_hidden, target_hidden, draft_weight, target_weight, **options)[0]


def linear_e2e_tv(
    draft_hidden: Tensor,
    target_hidden: Tensor,
    draft_weight: Tensor,
    target_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """`losses.e2e_tv`: each step's TV gradient times pre_i S_i / K; as `divergences`. [..., K, d] ... -> [...]."""
    return chain_mean(step_losses("e2e-tv", draft_hidden, target_hidden, draft_weight, target_weight, **options)[0])


def linear_kl(
    draft_hidden: Tensor,
    target_hidden: Tensor,
    draft_weight: Tensor,
    target_weight: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """`losses.kl`, KL(p || q); arguments as of `divergences`. [..., d] ... -> [...]."""
    return step_losses("kl", draft_hidden, target_hidden, draft_weight, target_weight, **options)[0]


def _row_step(backend: str, hidden: Tensor) -> RowStep:
    if backend == "auto":
        backend = "triton" if hidden.is_cuda else "chunked"
    if backend not in BACKENDS:
        raise SpecdecError(f"fused losses have no backend {backend!r}: use auto, {' or '.join(BACKENDS)}")
    if backend == "triton" and importlib.util.find_spec("triton") is None:
        raise SpecdecError("fused losses on a GPU need Triton: pip install triton, or use backend 'chunked'")
    module = importlib.import_module(f"specdec.training.fused.{backend}")
    return cast(RowStep, module.row_step)


def _per_row(temperature: Temperature, shape: torch.Size, hidden: Tensor) -> Tensor | None:
    """[N, 1]; None where it is 1 everywhere."""
    if isinstance(temperature, Tensor):
        return temperature.detach().to(hidden.device, _wide(hidden)).expand(shape).reshape(-1, 1)
    if not temperature > 0:
        raise SpecdecError(f"temperature {temperature} divides logits: give a number above 0")
    return None if temperature == 1 else hidden.new_full((hidden.shape[0], 1), temperature, dtype=_wide(hidden))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(draft: Tensor, target: Tensor, draft_weight: Tensor, target_weight: Tensor, rows: Tensor | None) -> None:
    for name, hidden, weight in (("draft", draft, draft_weight), ("target", target, target_weight)):
        if weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
            raise SpecdecError(
                f"{name}_hidden {tuple(hidden.shape)} does not fit {name}_weight {tuple(weight.shape)}: "
                "the last sizes must be equal"
            )
    if draft_weight.shape[0] != target_weight.shape[0] or draft_weight.dtype != target_weight.dtype:
        raise SpecdecError(
            f"the weights are {draft_weight.dtype} {tuple(draft_weight.shape)} and {target_weight.dtype} "
            f"{tuple(target_weight.shape)}: give both the same vocabulary and type"
        )
    expected = target.shape[:-1] if rows is None else rows.shape
    if draft.shape[:-1] != expected:
        raise SpecdecError(
            f"draft_hidden {tuple(draft.shape)} is compared with {tuple(expected)} rows of the target: "
            "give each draft row its own, or target_rows of the same shape"
        )
