"""Draft rows by request: whoever missed a step finds its own rows again, and nobody finds another's."""

import torch

from specdec.engines.vllm.drafts import DraftStore, row_bytes

V, N = 5, 2


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None].expand(-1, V).clone()


def propose(store: DraftStore, ids: list[str], base: float) -> None:
    """Request i's draft `step` gets logits and statistics of base + i + 0.1 * step."""
    store.begin(ids)
    for step in range(N):
        values = rows(*(base + i + 0.1 * step for i in range(len(ids))))
        store.write(step, values, values[:, :4].double())


def taken(store: DraftStore, ids: list[str], wanted: list[int], one_hot: tuple[str, ...] = ()) -> list[float | None]:
    """What comes back for each draft: its row's value, or None where it is to be verified as one-hot."""
    result = store.take(ids, wanted, one_hot)
    assert result is not None
    assert result.rows.shape == (sum(wanted),)
    values: list[float | None] = []
    for row in result.rows.tolist():
        values.append(None if row < 0 else round(result.logits[row, 0].item(), 3))
        if row >= 0:
            same = torch.equal(result.logits[row, :4].double(), result.row_stats[row])
            assert same, "rows and statistics belong together"
    return values


def test_rows_come_back_in_the_order_asked_for() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b", "c"], 10)
    assert taken(store, ["c", "a", "b"], [2, 2, 2]) == [12, 12.1, 10, 10.1, 11, 11.1]


def test_rows_are_read_where_they_are_kept() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    first = store.take(["b", "a"], [2, 1])
    propose(store, ["a", "b"], 20)
    second = store.take(["a", "b"], [1, 1])
    assert first is not None and second is not None
    assert first.logits.data_ptr() == second.logits.data_ptr()


def test_truncated_drafts_take_only_their_first_rows() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    assert taken(store, ["a", "b"], [1, 0]) == [10]


def test_a_request_that_sat_out_a_step_keeps_its_rows() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    assert taken(store, ["a"], [2]) == [10, 10.1]
    propose(store, ["a"], 20)
    assert taken(store, ["a", "b"], [2, 2]) == [20, 20.1, 11, 11.1]


def test_a_request_that_wants_nothing_needs_no_slot() -> None:
    store = DraftStore(N)
    propose(store, ["a"], 10)
    assert taken(store, ["new", "a"], [0, 1]) == [10]


def test_rows_are_taken_once() -> None:
    """After a step without a proposal (vLLM pads the drafts with zeros) old rows must not be used again."""
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    taken(store, ["a", "b"], [2, 2])
    assert taken(store, ["a", "b"], [2, 2]) == [None] * 4


def test_a_request_without_rows_is_one_hot_beside_one_with() -> None:
    store = DraftStore(N)
    propose(store, ["a"], 10)
    assert taken(store, ["new", "a"], [2, 2]) == [None, None, 10, 10.1]


def test_released_slots_are_used_again_and_growing_keeps_rows() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    store.release("a")
    many = [f"r{i}" for i in range(20)]
    propose(store, many, 100)
    assert taken(store, ["b", "r0", "r19"], [2, 1, 1]) == [11, 11.1, 100, 119]
    assert store.nbytes >= 21 * N * V * 4


def test_an_id_that_comes_back_does_not_find_the_rows_of_its_namesake() -> None:
    store = DraftStore(N)
    propose(store, ["a"], 10)
    store.release("a")
    assert taken(store, ["a"], [2]) == [None, None]


def test_requests_with_a_grammar_are_one_hot_without_touching_what_is_stored() -> None:
    store = DraftStore(N)
    propose(store, ["a", "b"], 10)
    assert taken(store, ["a", "b"], [2, 2], one_hot=("a",)) == [None, None, 11, 11.1]
    assert store.take(["a"], [2]) is not None


def test_a_step_that_wants_nothing_still_forgets_what_was_kept() -> None:
    store = DraftStore(N)
    propose(store, ["a"], 10)
    assert store.take(["a"], [0]) is None
    assert taken(store, ["a"], [2]) == [None, None]


def test_how_many_rows_were_gone_is_counted() -> None:
    store = DraftStore(N)
    assert store.take(["a"], [2]) is None
    propose(store, ["a"], 10)
    result = store.take(["a", "new"], [2, 1])
    assert result is not None and result.lost == 1


def test_a_bound_keeps_the_first_requests_and_verifies_the_others_as_one_hot() -> None:
    store = DraftStore(N, max_requests=2)
    propose(store, ["a", "b", "c"], 10)
    assert taken(store, ["c", "b", "a"], [2, 2, 2]) == [None, None, 11, 11.1, 10, 10.1]
    bound = store.nbytes
    assert bound == 2 * N * row_bytes(V, torch.float32)
    store.release("a")
    propose(store, ["b", "c", "d"], 20)
    assert taken(store, ["b", "c", "d"], [2, 2, 2]) == [20, 20.1, 21, 21.1, None, None]
    assert store.nbytes == bound
