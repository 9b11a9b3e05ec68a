import pytest
import torch

from specdec.sampling import SamplingBatch


def test_unseeded_requests_differ_from_one_another_and_between_calls():
    first, second = SamplingBatch.uniform(64), SamplingBatch.uniform(64)
    assert len({*first.seed.tolist(), *second.seed.tolist()}) == 128


def test_unseeded_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SamplingBatch.uniform(8)
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_spreads_one_seed_and_keeps_all_64_bits():
    assert SamplingBatch.uniform(3, seed=5).seed.tolist() == [5, 5, 5]
    assert SamplingBatch.uniform(1, seed=2**64 - 1).seed.tolist() == [-1]
    with pytest.raises(ValueError, match="64 bits"):
        SamplingBatch.uniform(1, seed=2**64)


def test_exact_dtypes_are_taken_without_a_copy_and_others_converted():
    batch = SamplingBatch.uniform(4, seed=1)
    again = SamplingBatch(
        batch.temperature, batch.top_k.long(), batch.top_p.double(), batch.min_p, batch.seed, batch.position
    )
    assert again.temperature.data_ptr() == batch.temperature.data_ptr()
    assert (again.top_k.dtype, again.top_p.dtype) == (torch.int32, torch.float32)


def test_shapes_must_agree():
    batch = SamplingBatch.uniform(4, seed=1)
    with pytest.raises(ValueError, match=r"top_p has shape \[3\]"):
        SamplingBatch(batch.temperature, batch.top_k, batch.top_p[:3], batch.min_p, batch.seed, batch.position)
    with pytest.raises(ValueError, match="one value per request"):
        SamplingBatch(torch.tensor(1.0), batch.top_k, batch.top_p, batch.min_p, batch.seed, batch.position)


def test_rows_repeats_and_reorders():
    batch = SamplingBatch.uniform(3, seed=1)
    batch.position = torch.tensor([10, 20, 30])
    assert batch.rows(torch.tensor([2, 2, 0])).position.tolist() == [30, 30, 10]
