"""What a batch of chains loses: eager on all logits, or fused where the vocabulary is large."""

import torch
from torch import Tensor

from specdec.drafting import thresholds_of
from specdec.sampling import SamplingBatch
from specdec.training.chain import ChainStates
from specdec.training.draws import Draws
from specdec.training.fused import FUSED, step_losses
from specdec.training.losses import STEP_LOSSES, acceptance, chain_mean, demonstration_weights, kl
from specdec.training.settings import Settings
from specdec.training.target import Target

# From this vocabulary on, losses that have a fused form take it. Below it the logits of a batch are few, and a run
# computes what it always has.
FUSED_FROM = 16_384
WEIGHT_ROWS = 256  # of the target's logits, made at a time for demonstration weights


class Objective:
    """The settings' loss against one target."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self.settings, self.target = settings, target
        self.fused = (
            settings.loss in FUSED
            and target.weight.shape[0] >= FUSED_FROM
            and target.model.lm_head.bias is None  # the fused forms know a weight alone
        )

    @property
    def _filters(self) -> bool:
        return self.settings.serving_mix is not None and self.settings.serving_mix.filters

    @property
    def labelled(self) -> bool:
        """Whether the text's own tokens enter the loss."""
        return self.settings.weighting is not None or (self.settings.loss == "ce" and self.settings.labels == "text")

    def __call__(self, states: ChainStates, draws: Draws, autocast: bool) -> tuple[Tensor, list[float]]:
        """Loss of each chain [n], and the mean acceptance of each chain step. draws: of the same chains."""
        mix = self.settings.serving_mix
        served = None if mix is None else mix.draw(draws, self.settings.num_steps_ahead, states.draft_hidden.device)
        per_step, alphas = self._fused(states, served) if self.fused else self._eager(states, served, draws, autocast)
        weights = self._weights(states) if self.settings.weighting is not None else None
        return chain_mean(per_step, weights), alphas.mean(0).tolist()

    def _fused(self, states: ChainStates, served: SamplingBatch | None) -> tuple[Tensor, Tensor]:
        temperature: float | Tensor = self.settings.temperature
        if served is not None:
            temperature = served.temperature.view(states.target_rows.shape)
        sides = (states.draft_hidden, states.target_hidden, self.target.weight)
        filters, rows = served if self._filters else None, states.target_rows
        losses, alphas = step_losses(
            self.settings.loss, *sides, temperature=temperature, filters=filters, target_rows=rows
        )  # fmt: skip
        losses = _tempered_loss(losses, served)
        if self.settings.kl_weight:  # of other distributions, so with a sweep of its own
            losses = losses + self.settings.kl_weight * step_losses("kl", *sides, target_rows=rows)[0]
        return losses, alphas

    def _eager(
        self, states: ChainStates, served: SamplingBatch | None, draws: Draws, autocast: bool
    ) -> tuple[Tensor, Tensor]:
        chains = states.logits(self.target, autocast)
        sides = [x.float() for x in (chains.draft_logits, chains.target_logits)]
        draft, teacher = (self._tempered(x, served) for x in sides)
        labels = chains.labels if self.settings.labels == "text" else _sampled(teacher, draws)
        with torch.no_grad():
            alphas = acceptance(draft[::8], teacher[::8])  # an eighth tells enough
        losses = _tempered_loss(STEP_LOSSES[self.settings.loss](draft, teacher, labels), served)
        if self.settings.kl_weight:
            losses = losses + self.settings.kl_weight * kl(*sides)
        return losses, alphas

    def _tempered(self, logits: Tensor, served: SamplingBatch | None) -> Tensor:
        """Logits [n, K, V] whose softmax is what is drawn from, with -inf for what a filter drops."""
        if served is None:
            return logits / self.settings.temperature
        rows = logits.flatten(0, 1)
        if self._filters:
            rows = rows.masked_fill(rows.detach() < thresholds_of(rows.detach(), served), -torch.inf)
        return (rows / served.temperature[:, None]).view_as(logits)

    @torch.no_grad()
    def _weights(self, states: ChainStates) -> Tensor:
        """demonstration_weights [n, K], by the target as it is (at temperature 1), each position once."""
        used, which = states.target_rows.unique(return_inverse=True)
        tokens = torch.empty_like(used)
        tokens[which] = states.labels  # chains that meet at a position have the same label there
        parts = zip(states.target_hidden[used].split(WEIGHT_ROWS), tokens.split(WEIGHT_ROWS), strict=True)
        weights = [demonstration_weights(self.target.logits(hidden), labels) for hidden, labels in parts]
        return torch.cat(weights)[which]


def _tempered_loss(losses: Tensor, served: SamplingBatch | None) -> Tensor:
    """Losses [n, K] of logits over temperatures, times these: their slopes in the logits are 1 / T as large."""
    return losses if served is None else losses * served.temperature.view(losses.shape)


def _sampled(teacher: Tensor, draws: Draws) -> Tensor:
    """Labels drawn from the target, [n, K] from logits [n, K, V], by inversion."""
    reached = teacher.softmax(-1).cumsum(-1)
    wanted = draws.uniform("label", teacher.shape[1]).to(teacher.device)[..., None] * reached[..., -1:]
    return (reached <= wanted).sum(-1)
