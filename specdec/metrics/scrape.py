"""What a server's /metrics says, as numbers, and what was added to it from one scrape to the next."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

OURS, VLLM = "specdec_", "vllm:"
Key = tuple[str, frozenset[tuple[str, str]]]  # a sample's name and labels


@dataclass(frozen=True)
class Sums:
    """Values of samples. seconds: what they were added up in; None: since the server began."""

    values: Mapping[Key, float]
    seconds: float | None = None

    def total(self, name: str, **labels: str) -> float:
        """Over all samples with these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for (sample, told), value in self.values.items() if sample == name and wanted <= told)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same, told apart by one label, in the order of its values."""
        wanted, found = set(labels.items()), dict[str, float]()
        for (sample, told), value in self.values.items():
            of = dict(told).get(label)
            if sample == name and wanted <= told and of is not None:
                found[of] = found.get(of, 0.0) + value
        return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))  # 10 behind 9

    def by_position(self, name: str, **labels: str) -> list[float]:
        """By draft position, the first draft's first; empty where the server tells none."""
        return list(self.by(name, "position", **labels).values())

    def share(self, part: str, whole: str) -> float | None:
        """part / whole; None where nothing was counted."""
        total = self.total(whole)
        return self.total(part) / total if total > 0 else None


@dataclass(frozen=True)
class Scrape(Sums):
    """at: when, of time.monotonic."""

    at: float = 0.0

    def since(self, earlier: "Scrape") -> Sums:
        """What every value grew by."""
        grown = {key: value - earlier.values.get(key, 0.0) for key, value in self.values.items()}
        return Sums(grown, self.at - earlier.at)


def parse(text: str, at: float = 0.0) -> Scrape:
    """Samples of ours and of vLLM. ValueError: the text is no metrics."""
    values: dict[Key, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith((OURS, VLLM)):
            for sample in family.samples:
                values[(sample.name, frozenset(sample.labels.items()))] = float(sample.value)
    return Scrape(values, at=at)
