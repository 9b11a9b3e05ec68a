"""How long the soak is, and how many clients there are in each part of it."""

from dataclasses import dataclass

CONCURRENCIES = (1, 8, 32, 4, 64)


@dataclass(frozen=True)
class Phase:
    """clients: requests in flight. calm: all of them right, and served to their end."""

    clients: int
    seconds: float
    calm: bool = False


@dataclass(frozen=True)
class Plan:
    """seconds: of all phases. warm: the share of them before which memory may grow. slope: MiB a minute that a process
    may grow by afterwards, steadily; rise: the share that it may grow by in all. See processes.py.
    """

    seconds: float
    warm: float = 0.4
    slope: float = 1.0
    rise: float = 0.03
    samples: float = 1.0  # seconds between looks at the processes

    @property
    def near(self) -> float:
        """Seconds of a round: samples that are compared are no further apart."""
        return sum(phase.seconds for phase in self.phases[: len(CONCURRENCIES)])

    @property
    def phases(self) -> list[Phase]:
        """Rounds of CONCURRENCIES of about two minutes, then a tenth of the time in calm."""
        rounds = max(1, round(0.9 * self.seconds / 120))
        each = 0.9 * self.seconds / (rounds * len(CONCURRENCIES))
        return [Phase(n, each) for _ in range(rounds) for n in CONCURRENCIES] + [Phase(8, 0.1 * self.seconds, True)]
