"""Greedy text of the steered model by transformers: every position computed anew for each token, without a cache."""

from collections.abc import Iterator
from contextlib import contextmanager
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
