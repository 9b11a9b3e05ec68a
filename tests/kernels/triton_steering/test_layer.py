"""What a layer of a GPU keeps for readers, beside what a layer of a CPU does."""

import pytest
import torch

from specdec.steering.change import Table
from specdec.steering.compile import Compiler
from tests.steering.programs import LAYER, WIDTH, every_program, make_saes

pytest.importorskip("vllm")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("split", [True, False], ids=["hidden and residual", "whole stream"])
def test_the_changed_stream_is_kept(dtype: torch.dtype, split: bool, device: torch.device) -> None:
    from specdec.engines.vllm.steering.layers import DeviceLayer, HostLayer

    saes, vectors = make_saes(), {"calm": torch.linspace(-1, 2, WIDTH)}
    programs = every_program(saes, vectors)[:12:3]
    g = torch.Generator().manual_seed(4)
    hidden, residual = (torch.randn(7, WIDTH, generator=g).to(dtype) for _ in range(2))
    slots, rows = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 4, 0])  # two rows of padding
    kept = {}
    for where in (torch.device("cpu"), device):
        compiler = Compiler({name: sae.to(where) for name, sae in saes.items()}, vectors)
        table = Table(len(programs), 4, WIDTH, where)
        for slot, program in enumerate(programs, 1):
            table.write(slot, compiler.compile(program)[LAYER])
        on_host = "host" not in kept
        rankings = compiler.rankings[LAYER]
        layer = HostLayer(table, rankings) if on_host else DeviceLayer(table, rankings, 9, dtype)
        changed = hidden.clone().to(where)
        layer.take(slots.to(where), 4)
        layer.watch(rows.to(where))
        layer.apply(changed, residual.to(where) if split else None)
        kept["host" if on_host else "device"] = layer.watched().float().cpu()
    near = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 2e-2}
    torch.testing.assert_close(kept["device"], kept["host"], **near)
    plain = (hidden.float() + residual.float() if split else hidden.float())[rows]
    changed_rows = (kept["host"] - plain).abs().amax(-1) > 1e-2
    assert changed_rows[:2].any() and not changed_rows[2]
