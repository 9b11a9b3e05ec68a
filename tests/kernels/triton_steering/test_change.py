"""The kernel against change.py, which tests/steering compares with the words of a program."""

import pytest
import torch

from specdec.steering.change import Table, change
from specdec.steering.compile import Compiler
from specdec.steering.program import Catalog
from specdec.steering.triton import change_in_place
from tests.steering.programs import LAYER, WIDTH, every_program, make_saes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("split", [True, False], ids=["hidden and residual", "whole stream"])
def test_agrees(dtype: torch.dtype, split: bool, device: torch.device) -> None:
    saes = {name: sae.to(device) for name, sae in make_saes().items()}
    vectors = {"calm": torch.linspace(-1, 2, WIDTH)}
    programs = every_program(make_saes(), vectors)[:: 1 if device.type == "cuda" else 3]
    compiler, table = Compiler(saes, vectors), Table(len(programs), 6, WIDTH, device)
    for slot, program in enumerate(programs, 1):
        table.write(slot, compiler.compile(program)[LAYER])
    g = torch.Generator().manual_seed(2)
    slots = torch.randint(0, len(programs) + 1, (2 * len(programs),), generator=g).to(device)
    hidden = (torch.randn(len(slots), WIDTH, generator=g) * 2).to(device, dtype)
    residual = torch.randn(len(slots), WIDTH, generator=g).to(device, dtype) if split else None
    x = hidden.float() if residual is None else hidden.float() + residual.float()
    thresholds = torch.stack([ranking.threshold(x) for ranking in compiler.rankings[LAYER]], -1)
    right = (hidden.float() + change(x, slots, table, thresholds)).to(dtype)
    found = hidden.clone()
    padded = torch.cat([slots, slots.new_zeros(5)]).to(torch.int32)
    change_in_place(found, residual, padded, table, thresholds)
    exact = {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found[slots == 0], hidden[slots == 0], **exact)
    loose = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(found, right, **loose)
    assert (found != hidden).any(-1)[slots > 0].float().mean() > 0.3


def test_without_topk_and_without_rows(device: torch.device) -> None:
    sae = make_saes()["relu-none"].to(device)
    compiler, table = Compiler({"one": sae}, {}), Table(1, 2, WIDTH, device)
    program = Catalog(WIDTH, {"one": (LAYER, sae.num_features)}).program({"steer": [{"feature": 1, "add": 2}]})
    table.write(1, compiler.compile(program)[LAYER])
    hidden = torch.randn(3, WIDTH, device=device)
    slots = torch.tensor([1, 0, 1], dtype=torch.int32, device=device)
    found = hidden.clone()
    change_in_place(found, None, slots, table)
    torch.testing.assert_close(found, hidden + change(hidden, slots.long(), table))
    change_in_place(found[:0], None, slots, table)
