"""The one form of change.py gives what the words of program.py say, for every kind of edit of every kind of SAE."""

import pytest
import torch
from torch import Tensor

from specdec.steering import SAE
from specdec.steering.change import Table, change
from specdec.steering.compile import Compiler
from specdec.steering.program import Program
from tests.steering.programs import FEATURES, LAYER, WIDTH, catalog, every_program, expected, make_saes


@pytest.fixture(scope="module")
def saes() -> dict[str, SAE]:
    return make_saes()


@pytest.fixture(scope="module")
def vectors() -> dict[str, Tensor]:
    return {"calm": torch.linspace(-1, 2, WIDTH)}


def table_of(programs: list[Program], saes: dict[str, SAE], vectors: dict[str, Tensor]) -> tuple[Table, Compiler]:
    compiler = Compiler(saes, vectors)
    table = Table(len(programs), 8, WIDTH, torch.device("cpu"))
    for slot, program in enumerate(programs, 1):
        table.write(slot, compiler.compile(program)[LAYER])
    return table, compiler


def test_every_program_in_one_batch(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> None:
    programs = every_program(saes, vectors)
    assert len(programs) > 130
    table, compiler = table_of(programs, saes, vectors)
    g = torch.Generator().manual_seed(1)
    slots = torch.arange(len(programs)).repeat(6)[torch.randperm(6 * len(programs), generator=g)] + 1
    x = torch.randn(len(slots), WIDTH, generator=g) * 2
    thresholds = torch.stack([ranking.threshold(x) for ranking in compiler.rankings[LAYER]], -1)
    found = x + change(x, slots, table, thresholds)
    acted = torch.zeros(len(programs), dtype=torch.bool)
    for row, slot, after in zip(x, slots.tolist(), found, strict=True):
        right = expected(row, programs[slot - 1], saes, vectors)
        torch.testing.assert_close(after.double(), right, rtol=1e-4, atol=1e-4)
        acted[slot - 1] |= bool((right - row.double()).norm() > 1e-2)
    assert acted.float().mean() > 0.8, "the programs should mostly do something"


def test_slot_zero_and_unused_places_change_nothing(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> None:
    programs = every_program(saes, vectors)[:1]
    table, _ = table_of(programs, saes, vectors)
    x = torch.randn(5, WIDTH)
    assert not change(x, torch.zeros(5, dtype=torch.int64), table).any()
    trimmed, whole = (change(x, torch.ones(5, dtype=torch.int64), table, edits=edits) for edits in (1, None))
    torch.testing.assert_close(trimmed, whole)


def test_a_place_is_used_again(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> None:
    programs = every_program(saes, vectors)
    long, short = max(programs, key=lambda p: len(p.steer)), programs[0]
    table, compiler = table_of([long], saes, vectors)
    table.write(1, compiler.compile(short)[LAYER])
    fresh, _ = table_of([short], saes, vectors)
    x, slots = torch.randn(4, WIDTH), torch.ones(4, dtype=torch.int64)
    torch.testing.assert_close(change(x, slots, table), change(x, slots, fresh), rtol=0, atol=0)
    assert table.host_counts == [0, 1]
    with pytest.raises(ValueError, match="9 edits in a table of 8"):
        table.write(1, compiler.compile(short)[LAYER] * 9)


def test_topk_leaves_the_next_largest_alone(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> None:
    """Each row is steered by the feature that comes right behind the k largest: whatever the order in which its
    pre-activation is summed, it is not active."""
    known = catalog(saes, vectors)
    programs = [known.program({"steer": [{"sae": "topk-none", "feature": f, "scale": 3}]}) for f in range(FEATURES)]
    table, compiler = table_of(programs, saes, vectors)
    x = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(2)) * 2
    k = saes["topk-none"].activation.k
    ranked = saes["topk-none"].to(dtype=torch.float64).pre_activations(x.double()).sort(descending=True)
    apart = ranked.values[:, k - 1] - ranked.values[:, k] > 1e-4
    thresholds = torch.stack([ranking.threshold(x) for ranking in compiler.rankings[LAYER]], -1)
    behind, last = (change(x, ranked.indices[:, place] + 1, table, thresholds) for place in (k, k - 1))
    assert apart.float().mean() > 0.9 and not behind[apart].any()
    assert last[apart & (ranked.values[:, k - 1] > 0)].any(dim=-1).all()
