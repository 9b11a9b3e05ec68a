"""A server's /metrics, as numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    samples: Mapping[tuple[str, Labels], float]

    @classmethod
    def of(cls, text: str) -> "Scrape":
        found: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                found[key] = found.get(key, 0.0) + sample.value
        return cls(found)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples with these labels."""
        wanted = set(labels.items())
        return sum(value for (given, told), value in self.samples.items() if given == name and wanted <= told)

    def by_position(self, name: str, **labels: str) -> np.ndarray:
        """float64 [positions]: summed over what else tells samples apart."""
        wanted, found = set(labels.items()), dict[int, float]()
        for (given, told), value in self.samples.items():
            if given == name and wanted <= told:
                position = int(dict(told)["position"])
                found[position] = found.get(position, 0.0) + value
        return np.asarray([found[i] for i in sorted(found)])

    def since(self, before: "Scrape") -> "Scrape":
        """What was counted in between; of gauges, the difference."""
        return Scrape({key: value - before.samples.get(key, 0.0) for key, value in self.samples.items()})
