"""What a server's /metrics answers, and what was added to it from one scrape to the next."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from specdec.errors import SpecdecError

OURS, VLLM = "specdec_", "vllm:"
TIMEOUT = 5.0  # seconds
Key = tuple[str, frozenset[tuple[str, str]]]  # a sample's name and labels


@dataclass(frozen=True)
class Sums:
    """Values of samples. seconds: what they were added up in; None: since the server began."""

    values: Mapping[Key, float]
    seconds: float | None = None

    def total(self, name: str) -> float:
        """Over all labels; 0 where there is none."""
        return sum(value for (sample, _), value in self.values.items() if sample == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The same, told apart by one label, in the order of its values."""
        found: dict[str, float] = {}
        for (sample, labels), value in self.values.items():
            of = dict(labels).get(label)
            if sample == name and of is not None:
                found[of] = found.get(of, 0.0) + value
        return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))  # 10 behind 9

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


def metrics_url(given: str) -> str:
    """http://localhost:8000/metrics, of localhost:8000 too."""
    url = (given if "://" in given else f"http://{given}").rstrip("/")
    return url if url.endswith("/metrics") else f"{url}/metrics"


def scrape(url: str) -> Scrape:
    """url: of /metrics. SpecdecError: nothing answers there, or a server without figures of ours."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            found = parse(answer.read().decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        raise SpecdecError(f"{url} answers HTTP {error.code}: give the URL of a vLLM server.") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise SpecdecError(
            f"No server answers at {url} ({why}): start one with `specdec serve`, or give the URL of yours."
        ) from None
    except (ValueError, http.client.HTTPException):  # of the URL, of the text's encoding, or of its lines
        raise SpecdecError(f"What {url} answers is no metrics: give the URL of a vLLM server.") from None
    if not any(name.startswith(OURS) for name, _ in found.values):
        raise SpecdecError(
            f"{url} shows no figures of specdec: start that server with `specdec serve`, or with "
            "--worker-cls specdec.engines.vllm.Worker and metrics.enabled left at true."
        )
    return found
