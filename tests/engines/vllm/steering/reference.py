"""The steered model by transformers, without a cache: greedy text, every position computed anew for each token, and the
activations that a text has.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from specdec.steering.program import Program
from tests.engines.vllm.engine import MODEL
from tests.engines.vllm.steering.served import Served
from tests.steering.programs import expected


def load_model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


@torch.no_grad()
def greedy(model: PreTrainedModel, ids: list[int], program: Program, served: Served, count: int) -> list[int]:
    tokens = list(ids)
    with _steered(model, program, served, first=len(ids) if program.on == "generated" else 0):
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(ids) :]


@torch.no_grad()
def activations(
    model: PreTrainedModel, ids: list[int], tokens: list[int], served: Served, sae: str, program: Program | None = None
) -> tuple[Tensor, Tensor]:
    """Of all the SAE's features, float64: at the positions that tokens were sampled from, behind the prompt ids, and at
    those of the prompt."""
    first = len(ids) if program is not None and program.on == "generated" else 0
    seen: list[Tensor] = []
    with _steered(model, program, served, first) if program is not None else nullcontext():
        layer = model.model.layers[served.saes[sae].layer]
        hook = layer.register_forward_hook(lambda module, given, output: seen.append(output[0].double()))
        model(torch.tensor([[*ids, *tokens]]))
        hook.remove()
    found = served.saes[sae].to(dtype=torch.float64).encode(seen[0])
    return found[len(ids) - 1 : -1], found[: len(ids)]


@contextmanager
def _steered(model: Any, program: Program, served: Served, first: int) -> Iterator[None]:
    """Hooks on the layers that the program names, which change the positions from `first` on."""
    layers = {edit.layer for edit in program.steer}
    hooks = []
    for layer in layers:
        here = program.model_copy(update={"steer": tuple(edit for edit in program.steer if edit.layer == layer)})

        def change(module: Any, given: Any, output: Tensor, here: Program = here) -> Tensor:
            stream = output.clone()
            for position in range(first, stream.shape[1]):
                stream[0, position] = expected(output[0, position], here, served.saes, served.vectors).float()
            return stream

        hooks.append(model.model.layers[layer].register_forward_hook(change))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
