"""What a training of an SAE was asked to do."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.training.encode import Reading
from specdec.training.formats import Fields

# What may differ between a run and its resumption: the result is the same.
_FREE = ("output", "save_every")


@dataclass(frozen=True)
class Settings:
    """layer: 0-based decoder layer whose output is read. features: of the SAE. k: active ones per token on average.

    tokens: of the data that the model reads, in all; passes: how often each of them is learnt from; batch_tokens: in an
    optimiser step; buffer_batches: so many batches are read at once and shuffled, since neighbours in a text are alike.
    lr: at its highest; None: 2e-4 * sqrt(16384 / features), a rule of dictionary_learning. aux_weight: of the loss that
    revives dead features; dead_after: tokens without firing, None: a twentieth of the run's, at most 10 million.
    save_every in minutes. model_name: what the SAE's file says; None: the name of the model's folder.
    """

    model: Path
    data: list[Path]
    output: Path
    layer: int
    features: int
    k: int
    eval_data: list[Path] = field(default_factory=list)
    tokens: int = 2_000_000
    passes: int = 1
    batch_tokens: int = 2048
    buffer_batches: int = 16
    seq_len: int = 256
    lr: float | None = None
    aux_weight: float = 1 / 32
    dead_after: int | None = None
    eval_windows: int = 64
    seed: int = 0
    save_every: float = 2.0
    save_dtype: str = "float32"
    device: str = "cpu"
    model_name: str | None = None
    text_field: str | None = None
    messages_field: str | None = None
    chat_template: Path | None = None

    def __post_init__(self) -> None:
        for name in ("features", "k", "tokens", "passes", "batch_tokens", "buffer_batches", "seq_len", "eval_windows"):
            if getattr(self, name) < 1:
                raise SpecdecError(f"{_option(name)} must be 1 or above, not {getattr(self, name)}")
        for name in ("layer", "seed", "aux_weight", "save_every"):
            if getattr(self, name) < 0:
                raise SpecdecError(f"{_option(name)} must be 0 or above, not {getattr(self, name)}")
        if self.k > self.features:
            raise SpecdecError(f"--k {self.k} is more than --features {self.features}: lower it")
        if self.lr is not None and not self.lr > 0:
            raise SpecdecError(f"--lr must be above 0, not {self.lr}")
        if self.batch_tokens < self.seq_len:
            raise SpecdecError(f"--batch-tokens {self.batch_tokens} is less than --seq-len {self.seq_len}: raise it")
        if self.save_dtype not in ("float32", "bfloat16"):
            raise SpecdecError(f"--save-dtype {self.save_dtype!r} is unknown: use float32 or bfloat16")

    @property
    def rows(self) -> int:
        """Windows in a batch."""
        return self.batch_tokens // self.seq_len

    @property
    def buffer_tokens(self) -> int:
        return self.buffer_batches * self.rows * self.seq_len

    @property
    def buffers(self) -> int:
        return -(-self.tokens // self.buffer_tokens)

    @property
    def steps_per_buffer(self) -> int:
        return self.passes * self.buffer_batches

    @property
    def rate(self) -> float:
        return self.lr if self.lr is not None else float(2e-4 * (16384 / self.features) ** 0.5)

    @property
    def death(self) -> int:
        """Tokens without firing that make a feature dead."""
        return self.dead_after if self.dead_after is not None else min(10_000_000, self.tokens * self.passes // 20)

    def reading(self, vocab_size: int) -> Reading:
        return Reading(Fields(self.text_field, self.messages_field), self.chat_template, "all", vocab_size)

    def check_fits(self, config: Any) -> None:
        if self.layer >= config.num_hidden_layers:
            raise SpecdecError(
                f"--layer {self.layer}: the model has layers 0 to {config.num_hidden_layers - 1}; two thirds of the "
                "way up is usual"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and for the training state."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def check_same_run(self, saved: dict[str, Any]) -> None:
        """SpecdecError: these settings would not continue the run that saved `saved`."""
        for name, value in self.as_dict().items():
            if name not in _FREE and saved.get(name) != value:
                raise SpecdecError(
                    f"the run in {self.output} was started with {_option(name)} {saved.get(name)}, not {value}: resume "
                    "it with the same options, or train into another --output"
                )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
