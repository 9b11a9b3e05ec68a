"""State as one process knows it, from and for a head that may be sharded: a saved run says nothing about processes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(state: Any) -> Any:
    """The same dicts and lists with every sharded tensor gathered. All processes must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return state


def load_module(module: nn.Module, state: dict[str, Tensor]) -> None:
    """`load_state_dict` from a whole state, whether the module is sharded or not."""
    own = module.state_dict()
    module.load_state_dict({name: _placed(value, own[name]) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` from a whole state, whether the optimizer's parameters are sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        number: {name: _placed(value, parameters[number]) for name, value in of_one.items()}
        for number, of_one in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": placed})


def _placed(value: Any, like: Tensor) -> Any:
    """A tensor of the shape of `like` sharded as that is; anything else (a count of steps) as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
