"""The draft scales of a head: for each bucket, the one of the longest acceptance on held-out text.

Along the text, as in specdec.evaluation: sum_k E[prod_{i<=k} alpha_i] drafts are accepted per step. From scale 1 it
climbs in steps of STEP while more are; all scales are compared on the same chains, so differences are far more certain
than the lengths. A gain below WORTH is not taken: there, chance decides.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from specdec.drafting import BUCKETS, Bucket, Calibration, overlap
from specdec.drafting.calibration import LARGEST, SMALLEST
from specdec.drafting.running import STEP
from specdec.heads.module import MTPHead
from specdec.sampling import SamplingBatch
from specdec.training.chain import Chains, ChainStates, run_states
from specdec.training.data import Windows
from specdec.training.target import Target

CHAINS = 512  # whose logits of both sides are kept: with 3 steps and 151,936 tokens in bfloat16, 0.9 GB
TOP_P = 0.95  # stands for all filters
WORTH = 2e-3  # tokens per step
LOGITS_AT_ONCE = 2**24  # in float32, of one side


@torch.no_grad()
def calibrate(
    head: MTPHead, target: Target, windows: Sequence[Windows], steps: int, autocast: bool = True
) -> Calibration:
    """Measured on about CHAINS chains of `steps` drafts, evenly from all windows."""
    share = -(-CHAINS // max(1, len(windows)))
    states = (run_states(head, target, w, target.hidden(w), steps, autocast) for w in windows)
    chains = [_some(s, share).logits(target, autocast) for s in states if len(s.labels)]
    return Calibration(tuple(_best(chains, bucket) for bucket in BUCKETS))


def _some(states: ChainStates, chains: int) -> ChainStates:
    """`chains` of them, evenly spread; all where there are fewer."""
    chosen = torch.arange(0, len(states.labels), max(1, len(states.labels) // chains), device=states.labels.device)
    return ChainStates(
        states.draft_hidden[chosen], states.target_hidden, states.target_rows[chosen], states.labels[chosen]
    )


def _best(chains: list[Chains], bucket: Bucket) -> float:
    """The scale at the top of the way up from 1, in either direction; 1 where neither is worth it."""
    scale, accepted = 1.0, _accepted(chains, bucket, 1.0)
    for factor in (STEP, 1 / STEP):
        while SMALLEST <= scale * factor <= LARGEST:
            further = _accepted(chains, bucket, scale * factor)
            if further < accepted + WORTH:
                break
            scale, accepted = scale * factor, further
        if scale != 1.0:
            break
    return round(scale, 4)


def _accepted(chains: list[Chains], bucket: Bucket, scale: float) -> float:
    """Drafts per step at this scale."""
    prefixes = [_alphas(part, bucket, scale).cumprod(-1).sum(-1) for part in chains]
    return float(torch.cat(prefixes).mean()) if prefixes else 0.0


def _alphas(chains: Chains, bucket: Bucket, scale: float) -> Tensor:
    """[n, K]."""
    at_once = max(1, LOGITS_AT_ONCE // chains.draft_logits.shape[-1])
    found = []
    sides = (side.flatten(0, 1).split(at_once) for side in (chains.target_logits, chains.draft_logits))
    for target, draft in zip(*sides, strict=True):
        top_p = TOP_P if bucket.filtered else 1.0
        sampling = SamplingBatch.uniform(len(draft), bucket.temperature, top_p=top_p, seed=0, device=draft.device)
        found.append(overlap(target, draft.float() * scale, sampling))
    return torch.cat(found).view(chains.labels.shape)
