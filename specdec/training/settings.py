"""What a training run was asked to do."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from specdec.errors import SpecdecError
from specdec.heads.config import Layout
from specdec.training.encode import LossOn, Reading
from specdec.training.formats import Fields
from specdec.training.losses import LOSSES
from specdec.training.optim import DEFAULT_LR, OptimizerName, ScheduleName
from specdec.training.serving_mix import ServingMix

Init = Literal["last-layer", "random", "native"]
Labels = Literal["text", "target"]
Weighting = Literal["one-minus-p"]

# What may differ between a run and its resumption: the result is the same, on another device up to rounding.
_FREE = ("output", "eval_every", "save_every", "cache_hidden", "checkpoint_activations", "tensorboard", "device")


@dataclass(frozen=True)
class Settings:
    """One training run. steps and minutes: budget, whichever ends first; both None: one pass over the data.

    batch_tokens, seq_len in tokens; warmup as a share of the run; eval_every and save_every in steps and minutes.
    accumulate: so many batches of batch_tokens, one after the other, make up an optimiser step; each is split over the
    processes of `accelerate launch`. device: auto is a GPU where there is one.
    init native: the target's own MTP layer. layout: see HeadConfig; None: its default for the target.
    labels, for the loss `ce` alone: the text's own tokens, or tokens sampled from the target.
    text_field, messages_field, chat_template, loss_on: see encode.Reading. cache_hidden: folder of the target's states.
    temperatures, top_k, top_p, min_p, filtered: see serving_mix.ServingMix; temperatures None: `temperature` alone.
    kl_weight: adds so much of KL(p || q) at temperature 1, which pulls where TV's slope fades.
    weighting: one-minus-p multiplies each token's loss by 1 - the target's probability of the text's token.
    """

    model: Path
    data: list[Path]
    output: Path
    loss: str = "e2e-tv"
    num_steps_ahead: int = 3
    eval_data: list[Path] = field(default_factory=list)
    steps: int | None = None
    minutes: float | None = None
    batch_tokens: int = 4096
    accumulate: int = 1
    seq_len: int = 256
    optimizer: OptimizerName = "muon"
    lr: float | None = None
    warmup: float = 0.03
    schedule: ScheduleName = "wsd"
    temperature: float = 1.0
    labels: Labels = "text"
    init: Init = "random"
    init_from: Path | None = None
    layout: Layout | None = None
    seed: int = 0
    eval_every: int = 200
    save_every: float = 2.0
    eval_windows: int = 64
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    device: str = "auto"
    checkpoint_activations: bool = False
    tensorboard: bool = True
    text_field: str | None = None
    messages_field: str | None = None
    chat_template: Path | None = None
    loss_on: LossOn = "all"
    cache_hidden: Path | None = None
    weighting: Weighting | None = None
    temperatures: tuple[float, float] | None = None
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    filtered: float = 0.25
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        self._one_of("loss", tuple(LOSSES))
        self._one_of("optimizer", get_args(OptimizerName))
        self._one_of("schedule", get_args(ScheduleName))
        self._one_of("init", get_args(Init))
        if self.layout is not None:
            self._one_of("layout", get_args(Layout))
        self._one_of("labels", get_args(Labels))
        self._one_of("loss_on", get_args(LossOn))
        if self.weighting is not None:
            self._one_of("weighting", get_args(Weighting))
        self._one_of("dtype", ("bfloat16", "float32"))
        self._one_of("device", ("auto", "cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise SpecdecError("--device 'cuda': PyTorch finds no usable GPU here; use --device cpu")
        for name in (
            "num_steps_ahead", "batch_tokens", "accumulate", "seq_len", "temperature", "eval_every", "eval_windows"
        ):  # fmt: skip
            self._positive(name)
        if self.seed < 0:
            raise SpecdecError(f"--seed must be 0 or above, not {self.seed}")
        for name in ("steps", "minutes", "lr"):
            if getattr(self, name) is not None:
                self._positive(name)
        if self.seq_len < self.num_steps_ahead + 2:
            raise SpecdecError(
                f"--seq-len {self.seq_len} is too short for {self.num_steps_ahead} steps ahead: raise it"
            )
        if self.batch_tokens < self.seq_len:
            raise SpecdecError(f"--batch-tokens {self.batch_tokens} is less than --seq-len {self.seq_len}: raise it")
        if self.kl_weight < 0:
            raise SpecdecError(f"--kl-weight must be 0 (off) or above, not {self.kl_weight}")
        if self.serving_mix is not None:
            self.serving_mix.check(self.loss)
        if not 0 <= self.warmup < 1:
            raise SpecdecError(f"--warmup {self.warmup} is not a share of the run: give a number from 0 to below 1")

    @property
    def rows(self) -> int:
        """Windows in a batch, over all processes."""
        return self.batch_tokens // self.seq_len

    @property
    def tokens_per_step(self) -> int:
        """Tokens in an optimiser step, over all processes."""
        return self.accumulate * self.rows * self.seq_len

    @property
    def serving_mix(self) -> ServingMix | None:
        """What chains are trained for, where it is more than one temperature without filters."""
        mix = ServingMix(
            self.temperatures or (self.temperature, self.temperature), self.top_k, self.top_p, self.min_p, self.filtered
        )
        return mix if self.temperatures is not None or mix.filters else None

    @property
    def rate(self) -> float:
        return self.lr if self.lr is not None else DEFAULT_LR[self.optimizer]

    def reading(self, vocab_size: int | None = None) -> Reading:
        """How the data is read; vocab_size of the target."""
        return Reading(Fields(self.text_field, self.messages_field), self.chat_template, self.loss_on, vocab_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and for the training state."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    def check_same_run(self, saved: dict[str, Any]) -> None:
        """Raises SpecdecError where these settings would not continue the run that saved `saved`."""
        defaults = {f.name: _plain(f.default) for f in fields(self)}
        for name, value in self.as_dict().items():
            before = saved.get(name, defaults.get(name))  # older runs had the default of what came later
            if name not in _FREE and before != value:
                option = "--" + name.replace("_", "-")
                raise SpecdecError(
                    f"the run in {self.output} was started with {option} {before}, not {value}: "
                    "resume it with the same options, or train into another --output"
                )

    def _one_of(self, name: str, names: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in names:
            raise SpecdecError(f"--{name.replace('_', '-')} {value!r} is unknown: use one of {', '.join(names)}")

    def _positive(self, name: str) -> None:
        value = getattr(self, name)
        if not value > 0:
            raise SpecdecError(f"--{name.replace('_', '-')} must be above 0, not {value}")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
