"""sum(min(p, q)), with p and q as drafting and verification compute them: by the kernels' own row statistics."""

import torch
from torch import Tensor

from specdec.sampling import SamplingBatch
from specdec.verify import sample_draft
from specdec.verify.types import LOG_SUM_EXP, THRESHOLD


@torch.no_grad()
def thresholds_of(logits: Tensor, sampling: SamplingBatch) -> Tensor:
    """[R, 1] of the logits' type: logits [R, V] below it are filtered out; -inf where nothing is.

    specdec.sampling.thresholds by whichever backend is fastest (the definition sorts each row).
    """
    found = logits.new_full((len(logits), 1), -torch.inf)
    some = ((sampling.top_k > 0) | (sampling.top_p < 1) | (sampling.min_p > 0)).nonzero()[:, 0]
    if len(some):
        found[some, 0] = sample_draft(logits[some], sampling.rows(some), 0)[1][:, THRESHOLD].to(found.dtype)
    return found


def probabilities(logits: Tensor, sampling: SamplingBatch, backend: str = "auto") -> Tensor:
    """float32 [R, V]: what rows of logits [R, V] are sampled by, under sampling parameters [R].

    Greedy requests and rows that are no distribution get some numbers; nothing is raised, nothing waits for the device.
    """
    stats = sample_draft(logits, sampling, 0, backend, on_bad_row="repair")[1].to(torch.float32)
    wide = logits.float()
    log_p = wide / sampling.temperature[:, None] - stats[:, LOG_SUM_EXP, None]
    return log_p.exp_().masked_fill_(wide < stats[:, THRESHOLD, None], 0.0)


def overlap(target: Tensor, draft: Tensor, sampling: SamplingBatch, backend: str = "auto") -> Tensor:
    """float32 [R]: sum(min(p, q)) of rows of logits [R, V] each, otherwise as `probabilities`."""
    p, q = (probabilities(rows, sampling, backend) for rows in (target, draft))
    return torch.minimum(p, q).sum(-1)
