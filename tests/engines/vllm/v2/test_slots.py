"""Parameters and draft rows by request slot."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from specdec.engines.vllm.requests import Admissions
from specdec.engines.vllm.v2.rows import DraftRows
from specdec.engines.vllm.v2.slots import SlotTable

CPU = torch.device("cpu")
SLOTS, N, V = 6, 2, 5


def params(**changed: Any) -> SimpleNamespace:
    """What is read of SamplingParams."""
    fixed = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": None, "structured_outputs": None}
    return SimpleNamespace(**{**fixed, **changed})


def slot_table() -> SlotTable:
    return SlotTable(Admissions(7, V), SLOTS, CPU)


def test_parameters_are_found_by_slot_once_written() -> None:
    table = slot_table()
    table.add(2, params(temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, seed=2**64 - 1))
    table.add(4, params(top_k=V))
    assert sorted(table.write().tolist()) == [2, 4]
    assert table.write() is None
    batch = table.sampling(torch.tensor([4, 2]), torch.tensor([10, 20]))
    assert batch.temperature.tolist() == [1.0, 0.5] and batch.top_k.tolist() == [0, 3]
    assert batch.seed[1] == -1 and batch.position.tolist() == [10, 20]


def test_padding_is_greedy() -> None:
    table = slot_table()
    for slot in range(SLOTS):
        table.add(slot, params())
    table.write()
    assert table.sampling(torch.tensor([-1, 0]), torch.zeros(2, dtype=torch.int64)).temperature.tolist() == [0, 1]


def test_requests_without_a_seed_get_one_of_their_own_each() -> None:
    table = slot_table()
    for slot in range(SLOTS):
        table.add(slot, params())
    table.write()
    seeds = table.columns.seed[:SLOTS].tolist()
    table.add(0, params())  # the next occupant
    table.write()
    assert len({*seeds, int(table.columns.seed[0])}) == SLOTS + 1


def test_a_steps_parameters_follow_a_change_of_hands() -> None:
    table = slot_table()
    table.add(1, params(temperature=0.5))
    table.write()
    slots, position = torch.tensor([1]), torch.tensor([3])
    first = table.step_sampling(slots, slots.numpy(), position)
    assert table.step_sampling(slots, slots.numpy(), position + 1) is first and first.position.tolist() == [4]
    table.add(1, params(temperature=0.25))
    table.write()
    assert table.step_sampling(slots, slots.numpy(), position).temperature.tolist() == [0.25]
    assert first.temperature.tolist() == [0.5]


def pool(places: int | None = None) -> DraftRows:
    return DraftRows(SLOTS, N, V, torch.float32, CPU, places)


def propose(rows: DraftRows, slots: list[int], begins: list[int]) -> None:
    """The draft `step` of slot s gets logits and statistics of s + 0.1 * step."""
    for step in range(N):
        values = torch.tensor([[s + 0.1 * step] for s in slots]).expand(-1, V)
        stats = values[:, :4].double()
        rows.write(torch.tensor(slots), torch.tensor(step), torch.tensor(begins), values.contiguous(), stats)


def found(rows: DraftRows, slots: list[int], steps: list[int], begins: list[int]) -> list[float | None]:
    """Values of what is found; None: not kept."""
    index = rows.find(torch.tensor(slots), torch.tensor(steps), torch.tensor(begins)).tolist()
    for row in index:
        assert row < 0 or torch.equal(rows.flat_logits[row, :4].double(), rows.flat_stats[row])
    return [None if row < 0 else round(float(rows.flat_logits[row, 0]), 3) for row in index]


def test_rows_are_found_by_slot_whatever_the_batch() -> None:
    rows = pool()
    propose(rows, [3, 1, 5], [10, 20, 30])
    propose(rows, [1], [22])  # 3 and 5 sit this step out
    assert found(rows, [5, 3, 3, 1, 1], [0, 0, 1, 0, 1], [30, 10, 10, 22, 22]) == [5.0, 3.0, 3.1, 1.0, 1.1]


def test_rows_of_another_step_are_not_found() -> None:
    rows = pool()
    propose(rows, [3], [10])
    assert found(rows, [3, 3], [0, 1], [11, 12]) == [None, None]


def test_rows_do_not_outlive_their_request() -> None:
    rows = pool()
    propose(rows, [3, 2], [10, 10])
    rows.forget(torch.tensor([3]))
    assert found(rows, [3, 2], [0, 0], [10, 10]) == [None, 2.0]


def test_padding_writes_where_nobody_reads() -> None:
    rows = pool()
    propose(rows, [0, SLOTS - 1, -1, -1], [10, 10, 10, 10])
    assert found(rows, [0, SLOTS - 1, -1], [1, 1, 1], [10, 10, 10]) == [0.1, 5.1, None]


def test_a_bound_keeps_the_slots_that_are_handed_out_first() -> None:
    rows = pool(places=2)
    propose(rows, [5, 4, 3], [10, 10, 10])
    assert found(rows, [5, 4, 3], [0, 0, 0], [10, 10, 10]) == [5.0, 4.0, None]
    assert rows.logits.shape == (3, N, V)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_slots_of_either_width(dtype: torch.dtype) -> None:
    rows = pool()
    propose(rows, [2], [10])
    assert rows.find(torch.tensor([2], dtype=dtype), torch.tensor([1]), torch.tensor([10])).item() >= 0
