import pytest
import torch

from specdec import _C
from specdec.sampling import ACCEPT, BONUS, DRAFT, RECOVER, philox_uniform
from specdec.sampling.philox import philox4x32


# Random123's own known answers (kat_vectors, "philox4x32 10"): counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "result"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter: str, key: str, result: str):
    def words(text: str) -> torch.Tensor:
        return torch.tensor([int(word, 16) for word in text.split()])

    assert philox4x32(words(counter), words(key)).tolist() == words(result).tolist()


def test_uniform_uses_the_first_two_words():
    u = philox_uniform(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), DRAFT)
    assert u.item() == ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53


@pytest.mark.parametrize("purpose", [DRAFT, ACCEPT, RECOVER, BONUS])
def test_cpp_agrees_bit_for_bit(purpose: int):
    g = torch.Generator().manual_seed(purpose)
    seed = torch.randint(-(2**63), 2**63 - 1, (200,), generator=g)
    position = torch.randint(0, 2**50, (200,), generator=g)
    ours = philox_uniform(seed, position, purpose)
    pairs = zip(seed.tolist(), position.tolist(), strict=True)
    assert ours.tolist() == [_C.philox_uniform(s, at, purpose) for s, at in pairs]


def test_uniform_and_uncorrelated():
    """Bound: 5 standard errors of a mean (1/sqrt(12 n)) and of a correlation (1/sqrt(n))."""
    n = 100_000
    seed, position = torch.full((n,), 7), torch.arange(n)
    streams = torch.stack([philox_uniform(seed, position, purpose) for purpose in range(4)])
    assert ((streams >= 0) & (streams < 1)).all()
    assert (streams.mean(1) - 0.5).abs().max() < 5 / (12 * n) ** 0.5
    correlation = torch.corrcoef(streams) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 5 / n**0.5
    neighbours = torch.corrcoef(torch.stack([streams[0, 1:], streams[0, :-1]]))[0, 1]
    assert abs(neighbours) < 5 / n**0.5
