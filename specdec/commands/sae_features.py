"""What `specdec sae features` does."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from specdec.errors import SpecdecError
from specdec.files import replace_file
from specdec.steering import SAE, load_sae
from specdec.steering.describe import describe
from specdec.steering.features import Feature, Peaks, find_peaks, list_features, ordered
from specdec.steering.features_page import features_page
from specdec.steering.fit import misfit, model_config
from specdec.training.batches import held_out_windows
from specdec.training.data import TokenStream, Windows, load_documents
from specdec.training.encode import Reading
from specdec.training.formats import check_paths
from specdec.training.target import Target

ROWS = 8  # windows in one forward pass


@dataclass(frozen=True)
class Wanted:
    """The command's options; features: of these alone, where there are some."""

    model: Path
    sae: Path
    data: list[Path]
    reading: Reading
    count: int
    order: str
    features: list[int]
    snippets: int
    windows: int
    seq_len: int
    k: int | None


def write_features(wanted: Wanted, output: Path, json_file: Path | None, console: Console) -> None:
    check_paths(wanted.data)
    ordered([], wanted.order)  # a wrong name is told before the work, not after
    sae = load_sae(wanted.sae, wanted.k)
    if reason := misfit(sae, model_config(wanted.model)):
        raise SpecdecError(reason)
    for j in wanted.features:
        if not 0 <= j < sae.num_features:
            raise SpecdecError(f"--feature {j}: the SAE has features 0 to {sae.num_features - 1}")
    target = Target(wanted.model)
    with console.status("reading data"):
        reading = replace(wanted.reading, vocab_size=target.config.vocab_size)
        stream = TokenStream.of(load_documents(target.tokenizer, wanted.data, reading))
    windows = held_out_windows(stream, ROWS, wanted.seq_len, wanted.windows)
    peaks = _peaks(sae, target, windows, wanted.snippets, console)
    listed = _listed(wanted, sae, target, windows, peaks)
    _write(output, features_page(sae, listed, peaks.tokens, wanted.model.resolve().name))
    if json_file is not None:
        content = {"sae": describe(sae), "tokens": peaks.tokens, "features": [asdict(f) for f in listed]}
        _write(json_file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    never = (peaks.active == 0).sum().item()
    console.print(f"{len(listed)} features over {peaks.tokens:,} tokens in {output}; {never} were never active")


def _listed(wanted: Wanted, sae: SAE, target: Target, windows: Sequence[Windows], peaks: Peaks) -> list[Feature]:
    """Those asked for, or the first in order of all that are active in enough windows to show what they stand for."""
    if wanted.features:
        return list_features(sae, target, windows, peaks, wanted.features)
    shown = (peaks.values > 0).all(dim=0).nonzero()[:, 0].tolist()
    return ordered(list_features(sae, target, windows, peaks, shown), wanted.order)[: wanted.count]


def _peaks(sae: SAE, target: Target, windows: Sequence[Windows], count: int, console: Console) -> Peaks:
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("windows", total=sum(len(w.tokens) for w in windows))
        return find_peaks(sae, target, windows, count, lambda done: bar.update(task, completed=done))


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise SpecdecError(f"cannot write {path} ({error.strerror}): choose another file") from None
