"""The row step in plain PyTorch: slices of the vocabulary that stay in the cache, in two or three passes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from specdec.training.fused.sweep import Slopes

SLICE_ELEMENTS = 256 * 1024  # of one temporary: a MiB in float32
MIN_SLICE = 256


def row_step(
    z: Tensor, t: Tensor, target_rows: Tensor | None, temperature: Tensor | None, slopes: Slopes, with_kl: bool
) -> tuple[Tensor, Tensor]:
    """See RowStep."""
    draft, target = _Rows(z, None, temperature), _Rows(t, target_rows, temperature)
    log_sum_q, log_sum_p = draft.log_sum_exp(), target.log_sum_exp()
    alpha, kl, low_mass = (torch.zeros_like(log_sum_q) for _ in range(3))
    for part in draft.slices():
        log_q = draft.wide(part) - log_sum_q
        log_p = target.wide(part) - log_sum_p
        p = log_p.exp()
        if with_kl:
            kl += (p * (log_p - log_q)).sum(-1, keepdim=True)
        q = log_q.exp_()
        if slopes.kl is not None:
            slopes.kl[:, part] = _over(q - p, temperature)
        alpha += torch.minimum(q, p).sum(-1, keepdim=True)
        if slopes.alpha is not None:
            signed = q.copysign_(p.sub_(q))  # q where q <= p, -q elsewhere: both facts in the buffer that z leaves
            low_mass += signed.clamp(min=0).sum(-1, keepdim=True)
            slopes.alpha[:, part] = signed
    if slopes.alpha is not None:
        _finish_alpha(slopes.alpha, _over(low_mass, temperature), _over(1 - low_mass, temperature), draft)
    return alpha.squeeze(-1), kl.squeeze(-1)


def _finish_alpha(slopes: Tensor, low: Tensor, high: Tensor, rows: "_Rows") -> None:
    """From signed q to q ([q <= p] - S), in place: s (1 - S) where s > 0, s S elsewhere."""
    for part in rows.slices():
        signed = slopes[:, part]
        # positive (1 - S) + negative S, with negative = signed - positive
        slopes[:, part] = (signed * low).add_(signed.clamp(min=0) * (high - low))


class _Rows:
    """Logits [U, V] read as R rows in slices of the vocabulary, wide and over the temperature."""

    def __init__(self, logits: Tensor, rows: Tensor | None, temperature: Tensor | None) -> None:
        self.logits, self.rows, self.temperature = logits, rows, temperature
        self.count = len(logits) if rows is None else len(rows)

    def slices(self) -> Iterator[slice]:
        vocab = self.logits.shape[1]
        width = max(MIN_SLICE, SLICE_ELEMENTS // self.count)
        return (slice(start, min(start + width, vocab)) for start in range(0, vocab, width))

    def wide(self, part: slice) -> Tensor:
        """[R, width] in float32, or float64 where the logits are."""
        x = self.logits[:, part]
        x = x if self.rows is None else x.index_select(0, self.rows)
        return _over(x if x.dtype == torch.float64 else x.float(), self.temperature)

    def log_sum_exp(self) -> Tensor:
        """[R, 1]."""
        largest = total = None
        for part in self.slices():
            x = self.wide(part)
            new = x.amax(-1, keepdim=True)
            if largest is None or total is None:
                total = (x - new).exp_().sum(-1, keepdim=True)
            else:
                new = torch.maximum(new, largest)
                total = total * (largest - new).exp_() + (x - new).exp_().sum(-1, keepdim=True)
            largest = new
        assert largest is not None and total is not None, "a vocabulary holds at least one token"
        return largest + total.log()


def _over(x: Tensor, temperature: Tensor | None) -> Tensor:
    return x if temperature is None else x / temperature
