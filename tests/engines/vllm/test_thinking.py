"""ThinkingBudgets against vLLM's own state, stepped token by token as sampling without speculation does."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm")

from specdec.engines.vllm.thinking import ThinkingBudgets

START, END, V = [1, 2], [3, 4], 6
CONFIG = SimpleNamespace(reasoning_start_token_ids=START, reasoning_end_token_ids=END)


def request(prompt: list[int], budget: int) -> SimpleNamespace:
    return SimpleNamespace(prompt_token_ids=prompt, sampling_params=SimpleNamespace(thinking_token_budget=budget))


def forced(budgets: ThinkingBudgets, one: SimpleNamespace, output: list[int], drafts: list[int]) -> list[int]:
    """The token that each row forces; -1: none."""
    rows = torch.zeros(len(drafts) + 1, V)
    budgets.apply(rows, ["r"], {"r": one}, [output], [drafts])
    return [int(row.argmax()) if row.any() else -1 for row in rows]


def plainly(one: SimpleNamespace, output: list[int]) -> int:
    """What vLLM's own state forces behind this output, its markers searched for from the beginning."""
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

    holder = ThinkingBudgetStateHolder(CONFIG, 1, 0, torch.device("cpu"), False)
    budget = one.sampling_params.thinking_token_budget
    holder._state = {0: holder._init_state_entry(one.prompt_token_ids, budget)}
    row = torch.zeros(1, V)
    for length in range(len(output) + 1):
        holder.update_state([output[:length]], None)
    holder.apply_to_logits(row, False, None)
    return int(row.argmax()) if row.any() else -1


@pytest.mark.parametrize("seed", range(30))
def test_rows_are_forced_as_without_drafts(seed: int):
    """Steps of several tokens, drafts that are kept in part, markers of two tokens."""
    g = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(1, V, (n,), generator=g).tolist()

    one, budgets, output = (
        request(draw(3) + START * (seed % 2), 1 + seed % 4),
        ThinkingBudgets(CONFIG, 8, torch.device("cpu")),
        [],
    )
    while len(output) < 30:
        drafts = draw(3)
        rows = forced(budgets, one, output, drafts)
        assert rows == [plainly(one, output + drafts[:n]) for n in range(4)]
        kept = int(torch.randint(0, 4, (), generator=g))
        output = output + drafts[:kept] + (draw(1) if rows[kept] < 0 else [rows[kept]])


def test_an_output_that_becomes_shorter_is_counted_anew():
    one, budgets = request(START, 4), ThinkingBudgets(CONFIG, 8, torch.device("cpu"))
    forced(budgets, one, [5] * 4, [])
    rows = [forced(budgets, one, [5] * n, []) for n in range(1, 8)]
    assert rows == [[plainly(one, [5] * n)] for n in range(1, 8)]
    assert [END[0]] in rows, "the budget must bind"
