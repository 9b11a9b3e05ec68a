"""What each request asked of sampling, and the seeds of those that bring none."""

from types import SimpleNamespace

from specdec.engines.vllm.requests import Admissions

V = 50


def params(seed: int | None = None) -> SimpleNamespace:
    """What is read of SamplingParams."""
    return SimpleNamespace(temperature=1.0, top_k=V, top_p=1.0, min_p=0.0, seed=seed, structured_outputs=None)


def seeds(engine_seed: int, replica: int, count: int = 100) -> list[int]:
    admissions = Admissions(engine_seed, V, replica)
    return [admissions.read(params()).seed for _ in range(count)]


def test_an_engine_repeats_itself_and_no_request_shares_a_stream_in_any_replica() -> None:
    """The second replica of a server with seed 0 is not the first of a server with seed 1."""
    engines = {(seed, replica): seeds(seed, replica) for seed in range(3) for replica in range(3)}
    assert len({seed for each in engines.values() for seed in each}) == 9 * 100
    assert engines[1, 2] == seeds(1, 2)


def test_a_seed_of_the_requests_own_is_taken_as_it_is() -> None:
    assert Admissions(0, V, 3).read(params(seed=7)).seed == 7
    assert Admissions(0, V, 3).read(params(seed=2**64 - 1)).seed == -1
