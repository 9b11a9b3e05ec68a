"""Formats of SAEs, one file each, and the choice between them.

To add one: a class as in base.Format in a file of its own, and a line in the table below. The first that fits reads it.
"""

from pathlib import Path

from specdec.errors import SpecdecError
from specdec.registry import Registry
from specdec.steering.activations import TopK
from specdec.steering.formats.base import Format, Source
from specdec.steering.sae import SAE

__all__ = ["FORMATS", "Format", "Source", "format_of", "load_sae", "outline_sae"]


FORMATS: Registry[Format] = Registry("SAE format")
for _name, _file, _class in (
    ("saelens", "saelens", "SAELens"),
    ("gemma-scope", "gemma_scope", "GemmaScope"),
    ("gemma-scope-2", "gemma_scope_2", "GemmaScope2"),
    ("llama-scope", "llama_scope", "LlamaScope"),
    ("sparsify", "sparsify", "Sparsify"),
    ("qwen-scope", "qwen_scope", "QwenScope"),  # the last three by the tensors in a pickle
    ("goodfire", "goodfire", "Goodfire"),
    ("dictionary-learning", "dictionary_learning", "DictionaryLearning"),
):
    FORMATS.register_attribute(_name, f"{__name__}.{_file}", _class)


def load_sae(path: str | Path, k: int | None = None) -> SAE:
    """Reads an SAE of any known format from a folder or a weight file, into float32 on the CPU.

    k: active features per token, for TopK files that do not say it (Qwen-Scope outside a folder of its name).
    SpecdecError: nothing there, an unknown format, a file that is damaged or would run code, a tensor that is missing,
    misshapen or not finite, a variant that is not supported; k where the file says another, or has no TopK.
    """
    return _read(Source(Path(path), k))


def outline_sae(path: str | Path, k: int | None = None) -> SAE:
    """What an SAE is without its numbers, from the headers of its files: tensors on PyTorch's meta device.

    SpecdecError: as in load_sae, but for values that are not finite.
    """
    return _read(Source(Path(path), k, outline=True))


def _read(source: Source) -> SAE:
    sae = format_of(source).read(source)
    if source.k is not None and not isinstance(sae.activation, TopK):
        kind = type(sae.activation).__name__
        raise SpecdecError(f"k {source.k} is given for {source.path}, which has no TopK but {kind}: leave it out")
    return sae


def format_of(source: Source) -> Format:
    """The format of a file or folder. SpecdecError: none that is known."""
    if not source.path.exists():
        raise SpecdecError(f"there is no SAE at {source.path}: check the path")
    for form in map(FORMATS.get, FORMATS.names()):
        if form.fits(source):
            return form
    known = "; ".join(f"{name} ({FORMATS.get(name).files})" for name in FORMATS.names())
    raise SpecdecError(f"{source.path} is no SAE of a known format: it holds {_held(source)}; known are {known}")


def _held(source: Source) -> str:
    if source.pickled is not None:
        return "the tensors " + (", ".join(sorted(source.pickled.found)[:8]) or "(none)")
    if source.path.is_file():
        return f"one file {source.path.name}"
    names = sorted(p.name for p in source.path.iterdir())
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") if names else "nothing"
