"""Drawing a token: the inverse of the cumulative distribution, in token-id order."""

import torch
from torch import Tensor


def inverse_cdf(weights: Tensor, u: Tensor) -> Tensor:
    """The first token whose cumulative weight exceeds u times the total; int64 [R].

    weights float64 [R, V], not negative, need not sum to 1; u float64 [R] in [0, 1). A token without weight is never
    drawn: not for u = 0, and not where u times the total is rounded up to the total. float64, because float32 sums
    over a large vocabulary draw other tokens in about one of a hundred cases.
    """
    cumulative = weights.to(torch.float64).cumsum(-1)
    drawn = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(drawn, last)
