"""What a request asks of sampling, as evaluation applies it to both sides, and how the command line writes it."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.sampling import GREEDY_BELOW, SamplingBatch, filtered_logits


@dataclass(frozen=True)
class Filters:
    """The sampling parameters of a request, applied to both sides. top_k 0, top_p 1 and min_p 0 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Distribution that serving samples from: logits [..., V] -> float32 [..., V]."""
        if self.temperature < GREEDY_BELOW:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        if (self.top_k, self.top_p, self.min_p) == (0, 1.0, 0.0):
            return (logits.float() / self.temperature).softmax(-1)
        flat = logits.reshape(-1, logits.shape[-1])
        rows = SamplingBatch.uniform(
            len(flat), self.temperature, self.top_k, self.top_p, self.min_p, seed=0, device=logits.device
        )
        kept = filtered_logits(flat, rows.temperature, rows.top_k, rows.top_p, rows.min_p)
        return kept.softmax(-1).view(logits.shape)

    def __str__(self) -> str:
        """As parse_filters reads it, without what is off: T=0.6,top_p=0.95."""
        changed = {f.name: getattr(self, f.name) for f in fields(self)[1:] if getattr(self, f.name) != f.default}
        return ",".join([f"T={self.temperature:g}", *(f"{name}={value:g}" for name, value in changed.items())])

    def check(self, where: str = "") -> "Filters":
        """Itself. SpecdecError, behind the words `where`: a value that no engine would take."""
        for name, fine, remedy in (
            ("temperature", isfinite(self.temperature) and self.temperature >= 0, "give a number from 0 (greedy) up"),
            ("top_k", self.top_k >= 0, "give 0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "give a number above 0, up to 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "give a number from 0 (off) to 1"),
        ):
            if not fine:
                option = "--" + name.replace("_", "-")
                raise SpecdecError(f"{where}{option} cannot be {getattr(self, name):g}: {remedy}")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


NAMES = {"T": "temperature"} | {name: name for name in ("temperature", "top_k", "top_p", "min_p")}


def parse_filters(text: str) -> Filters:
    """T=0.6,top_p=0.95 -> Filters. Names: T (or temperature), top_k, top_p, min_p, with - as well as _.

    SpecdecError: an unknown name, no number, or a number out of range.
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        given, equals, number = (s.strip() for s in part.partition("="))
        name = NAMES.get(given.replace("-", "_"))
        if name is None or not equals:
            raise SpecdecError(f"--setting {text!r}: {part.strip()!r} is not one of {', '.join(NAMES)} with =NUMBER")
        try:
            values[name] = int(number) if name == "top_k" else float(number)
        except ValueError:
            raise SpecdecError(f"--setting {text!r}: {number!r} is no number for {given}") from None
    return Filters(**values).check(f"--setting {text!r}: ")


PLAIN = Filters()  # temperature 1, no filter
