"""Everything that `specdec eval` finds without an engine: figures along held-out text, and what serving will show."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from specdec.drafting import NEUTRAL, Calibration, load_calibration
from specdec.errors import SpecdecError
from specdec.evaluation.acceptance import Acceptance
from specdec.evaluation.continuations import sample_continuations
from specdec.evaluation.entropy import CURVES, fit, slope_difference
from specdec.evaluation.filters import Filters
from specdec.evaluation.measure import Figures, measure
from specdec.evaluation.served import Served, continuation_windows, predict
from specdec.heads import MTPHead, load_head
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream
from specdec.training.encode import Encoder, Reading
from specdec.training.formats import check_paths, read_documents
from specdec.training.prompts import make_prompts
from specdec.training.target import Target

ROWS = 16  # windows at a time
Progress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


@dataclass(frozen=True)
class Plan:
    """windows of seq_len tokens from the data; `prompts` of prompt_tokens, continued for output_tokens. steps: drafts.

    prompts 0: no prediction. dtype: of the target, and of the head's arithmetic. calibrated: drafts at the heads' own
    draft scales (specdec/drafting), as servers draw them.
    """

    model: Path
    heads: Sequence[Path]
    data: Sequence[Path]
    settings: Sequence[Filters]
    reading: Reading
    steps: int = 3
    seq_len: int = 256
    windows: int = 64
    prompts: int = 64
    prompt_tokens: int = 32
    output_tokens: int = 80
    dtype: str = "bfloat16"
    device: str = "cpu"
    seed: int = 0
    calibrated: bool = True

    @property
    def autocast(self) -> bool:
        return self.dtype == "bfloat16"

    @cached_property
    def calibrations(self) -> list[Calibration]:
        """Of each head; the files are read once."""
        return [load_calibration(folder) if self.calibrated else NEUTRAL for folder in self.heads]


@dataclass(frozen=True)
class Results:
    """rows: plain values, one for each head and setting, heads outermost. differences: of entropy slopes, each head
    against the first. prompts: token ids, for an engine to continue."""

    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    prompts: list[list[int]]


def evaluate(plan: Plan, progress: Progress = lambda what, done, total: None) -> Results:
    """Loads target, heads and data, in this order, so that each fault shows before the work starts (SpecdecError)."""
    check_paths(plan.data)
    target = Target(plan.model, getattr(torch, plan.dtype), plan.device)
    heads = [load_head(folder, target.config).to(target.device) for folder in plan.heads]
    windows, groups, prompts = _read(plan, target)
    total = sum(len(w.tokens) for w in windows)
    figures = measure(
        heads, target, windows, plan.steps, plan.settings, plan.autocast,
        lambda done: progress("held-out windows", done, total), plan.calibrations,
    )  # fmt: skip
    served = [_serve(plan, target, heads, prompts, number, progress) for number in range(len(plan.settings))]
    rows = []
    for h, folder in enumerate(plan.heads):
        for s, setting in enumerate(plan.settings):
            row = _row(figures[h][s], setting, groups)
            rows.append({"head": str(folder), "setting": str(setting)} | row | (served[s][h] if prompts else {}))
    return Results(rows, list(_differences(plan, figures)), prompts)


def _read(plan: Plan, target: Target) -> tuple[list, list[str], list[list[int]]]:
    """Windows, the group of each document by its number, prompts."""
    known = getattr(target.config, "max_position_embeddings", plan.seq_len)
    needed = plan.prompt_tokens + plan.output_tokens + plan.steps + 1 if plan.prompts else 0
    for option, value in (
        ("--seq-len makes", plan.seq_len),
        ("--prompt-tokens, --output-tokens and drafts make", needed),
    ):
        if value > known:
            raise SpecdecError(f"{option} {value} tokens, but the target knows at most {known} positions: lower them")
    encoder = Encoder(target.tokenizer, plan.reading)
    documents = list(read_documents(plan.data, plan.reading.fields))
    stream = TokenStream.of(list(encoder(documents)))
    prompts: list[list[int]] = []
    if plan.prompts:
        sizes = (plan.prompts, plan.prompt_tokens, plan.output_tokens + plan.steps + 1)
        prompts = make_prompts(documents, encoder, *sizes, plan.seed, known).ids
    windows = held_out_windows(stream, ROWS, plan.seq_len, plan.windows)
    return windows, [d.group or "" for d in documents], prompts


def _serve(
    plan: Plan, target: Target, heads: list[MTPHead], prompts: list[list[int]], number: int, progress: Progress
) -> list[dict[str, Any]]:
    """By head, what serving will show at setting `number`."""
    if not prompts:
        return []
    setting = plan.settings[number]
    outputs = sample_continuations(
        target, prompts, setting, plan.output_tokens, plan.seed + number,
        lambda done, total: progress(f"the target's own text at {setting}", done, total),
    )  # fmt: skip
    return [
        {"predicted": sampled.as_dict(), "predicted_greedy": greedy.as_dict()}
        for sampled, greedy in predict_all(plan, target, heads, prompts, outputs, setting)
    ]


def predict_all(
    plan: Plan,
    target: Target,
    heads: Sequence[MTPHead],
    prompts: Sequence[list[int]],
    outputs: Sequence[list[int]],
    setting: Filters,
) -> list[tuple[Served, Served]]:
    """By head: with sampled and with greedy drafts, from outputs that the target sampled at this setting."""
    windows = continuation_windows(prompts, outputs, ROWS)
    figures = measure(heads, target, windows, plan.steps, [setting], plan.autocast, calibrations=plan.calibrations)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return [(predict(f[0], starts), predict(f[0], starts, greedy=True)) for f in figures]


def _row(figures: Figures, setting: Filters, groups: list[str]) -> dict[str, Any]:
    curves = [curve._asdict() | asdict(fit(figures, curve)) for curve in CURVES]
    by_source = {}
    for group in dict.fromkeys(groups[d] for d in figures.documents.unique().tolist()):
        members = torch.tensor([g == group for g in groups])
        part = Acceptance.of(figures.only(members[figures.documents]), setting).as_dict()
        by_source[group] = {k: v for k, v in part.items() if k != "filters"}
    return Acceptance.of(figures, setting).as_dict() | {"entropy": curves, "by_source": by_source}


def _differences(plan: Plan, figures: list[list[Figures]]) -> list[dict[str, Any]]:
    return [
        {"head": str(plan.heads[h]), "against": str(plan.heads[0]), "setting": str(setting)}
        | slope_difference(figures[h][s], figures[0][s], curve)
        for h in range(1, len(plan.heads))
        for s, setting in enumerate(plan.settings)
        for curve in CURVES
    ]
