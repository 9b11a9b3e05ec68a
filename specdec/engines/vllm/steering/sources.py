"""The server's SAEs and vectors: loaded in the worker, and only looked at in the API process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from specdec.config import PlacedSAE, SteeringSettings
from specdec.errors import SpecdecError
from specdec.steering import load_sae, outline_sae
from specdec.steering.program import Catalog
from specdec.steering.sae import SAE

ReadSAE = Callable[[str, int | None], SAE]


@dataclass(frozen=True)
class Sources:
    """By name; layers: where hooks are needed."""

    saes: dict[str, SAE]
    vectors: dict[str, Tensor]
    catalog: Catalog

    @property
    def layers(self) -> list[int]:
        catalog = self.catalog
        return sorted({layer for layer, _ in catalog.saes.values()} | set(catalog.vectors.values()) | catalog.layers)


def load_sources(settings: SteeringSettings, text_config: Any) -> Sources:
    """Everything that the settings name. text_config: the model's (hidden_size, num_hidden_layers).

    SpecdecError: a file that cannot be read or belongs to another model, a layer that the model lacks, a preset that is
    no program.
    """
    return _sources(settings, text_config, load_sae)


def catalog_of(settings: SteeringSettings, text_config: Any) -> Catalog:
    """Theirs, from the headers of SAEs, which may have gigabytes. SpecdecError: as in load_sources, but for values that
    are not finite.
    """
    return _sources(settings, text_config, outline_sae).catalog


def _sources(settings: SteeringSettings, text_config: Any, read: ReadSAE) -> Sources:
    width, count = text_config.hidden_size, text_config.num_hidden_layers
    saes = {name: _sae(name, placed, width, count, read) for name, placed in settings.saes.items()}
    vectors, vector_layers = {}, {}
    for name, placed in settings.vectors.items():
        vectors[name] = _vector(name, placed.path, width)
        vector_layers[name] = _layer(f"steering.vectors.{name}", placed.layer, count)
    catalog = Catalog(
        width=width,
        saes={name: (sae.layer or 0, sae.num_features) for name, sae in saes.items()},
        vectors=vector_layers,
        layers=frozenset(_layer("steering.layers", layer, count) for layer in settings.layers),
        presets=settings.presets,
        max_edits=settings.max_edits,
        max_strength=settings.max_strength,
        max_read=settings.max_read,
    )
    catalog.check_presets()
    return Sources(saes, vectors, catalog)


def _sae(name: str, placed: PlacedSAE, width: int, count: int, read: ReadSAE) -> SAE:
    where = f"steering.saes.{name}"
    sae = read(placed.path, placed.k)
    if sae.d_in != width:
        raise SpecdecError(
            f"{where}: {placed.path} is for a model of width {sae.d_in}, this one has {width}: choose another SAE"
        )
    if placed.layer is not None:
        sae = replace(sae, layer=placed.layer)
    if sae.layer is None:
        said = f" (its hook is {sae.hook!r})" if sae.hook else ""
        raise SpecdecError(
            f"{where}: {placed.path} does not say which layer's output it belongs to{said}: "
            'give {"path": ..., "layer": ...}'
        )
    _layer(where, sae.layer, count)
    return sae


def _layer(where: str, layer: int | None, count: int) -> int:
    if layer is None:
        raise SpecdecError(f'{where}: say which layer with {{"path": ..., "layer": ...}}')
    if layer >= count:
        raise SpecdecError(f"{where}: layer {layer} is out of range: this model has 0 to {count - 1}")
    return layer


def _vector(name: str, path: str, width: int) -> Tensor:
    where = f"steering.vectors.{name}"
    try:
        tensors = load_file(Path(path))
    except (OSError, SafetensorError) as error:
        raise SpecdecError(f"{where}: cannot read {path} as safetensors ({error})") from None
    if len(tensors) != 1:
        raise SpecdecError(f"{where}: {path} holds {len(tensors)} tensors: one vector of [{width}] is wanted")
    vector = next(iter(tensors.values())).float().squeeze()
    if vector.shape != (width,):
        raise SpecdecError(f"{where}: {path} has the shape {list(vector.shape)}, this model wants [{width}]")
    if not torch.isfinite(vector).all() or not vector.any():
        raise SpecdecError(f"{where}: {path} is zero, or not finite: it has no direction")
    return vector
