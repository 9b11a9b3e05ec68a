"""Several processes serving one model."""

import pytest

from tests.engines.vllm.engine import ours, run_child


def test_two_tensor_parallel_ranks_give_the_tokens_of_one(prompts: list[list[int]]) -> None:
    """Greedy, seeded and unseeded requests: each rank draws them without talking to the other, and one rank counts.

    Two ranks sum in another order, so that once in many thousands of tokens a number falls on the other side of a
    threshold: with the shipped head at the tenth token of prompt 2 without a seed, hence other prompts there.
    """
    jobs = [
        {"prompts": prompts[:4], "params": {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}},
        {"prompts": prompts[:4], "params": {"temperature": 1.0, "max_tokens": 24, "ignore_eos": True, "seed": 5}},
        {"prompts": prompts[4:8], "params": {"temperature": 1.0, "max_tokens": 24, "ignore_eos": True}},
    ]
    one = run_child(ours(3), jobs)
    two = run_child({**ours(3), "tensor_parallel_size": 2}, jobs, VLLM_CPU_OMP_THREADS_BIND="nobind")
    assert two.results == one.results
    counted = [{k: v for k, v in found.specdec.items() if "seconds" not in k} for found in (one, two)]
    assert counted[1] == pytest.approx(counted[0], rel=1e-4) and two.specdec["specdec_verify_steps_total"] > 0
