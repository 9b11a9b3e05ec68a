"""Texts that the target samples itself, without drafts and without an engine: what serving will write."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from specdec.evaluation.filters import Filters
from specdec.training.target import Target

ROWS = 64  # prompts at a time


@torch.no_grad()
def sample_continuations(
    target: Target,
    prompts: Sequence[list[int]],
    filters: Filters,
    output_tokens: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[int]]:
    """`output_tokens` tokens behind each prompt, or fewer up to the end-of-text token, which is the last one then.

    The same for the same prompts and seed, on one machine. progress is told target steps.
    """
    outputs: list[list[int]] = []
    generator = torch.Generator(target.device).manual_seed(seed)
    batches = [prompts[begin : begin + ROWS] for begin in range(0, len(prompts), ROWS)]
    total = len(batches) * output_tokens
    for number, part in enumerate(batches):
        drawn: list[Tensor] = []
        for tokens in _steps(target, part, filters, generator):
            drawn.append(tokens)
            progress(number * output_tokens + len(drawn), total)
            if len(drawn) == output_tokens:
                break
        end = target.tokenizer.eos_token_id
        outputs += [_to_end(row, end) for row in torch.stack(drawn, dim=1).tolist()]
    progress(total, total)
    return outputs


def _steps(
    target: Target, prompts: Sequence[list[int]], filters: Filters, generator: torch.Generator
) -> Iterator[Tensor]:
    """The next token of each prompt [B], and so on until all have ended; prompts are padded on their left."""
    end = target.tokenizer.eos_token_id
    longest = max(map(len, prompts))
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=target.device)
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=target.device)
    positions, cache = (real.cumsum(1) - 1).clamp(min=0), None
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=target.device)
    while not finished.all():
        out = target.model.model(
            input_ids=tokens, attention_mask=real, position_ids=positions, past_key_values=cache, use_cache=True
        )
        p = filters.probabilities(target.logits(out.last_hidden_state[:, -1]))
        tokens = torch.multinomial(p, 1, generator=generator)
        yield tokens[:, 0]
        if end is not None:
            finished |= tokens[:, 0] == end
        positions, cache = positions[:, -1:] + 1, out.past_key_values
        real = torch.nn.functional.pad(real, (0, 1), value=1)


def _to_end(tokens: list[int], end: int | None) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
