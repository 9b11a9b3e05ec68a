"""Random SAEs of every kind, programs over them, and the stream that each should give, row by row in float64."""

from pathlib import Path

import torch
from torch import Tensor

from specdec.steering import SAE
from specdec.steering.activations import Activation, Gated, JumpReLU, ReLU, TopK
from specdec.steering.program import Catalog, Edit, Program
from specdec.steering.sae import Normalization

WIDTH, FEATURES, LAYER = 24, 40, 5
ACTIVATIONS = ("relu", "jumprelu", "gated", "topk")
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "layer_norm", "norm")


def make_sae(activation: str, normalization: Normalization, seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=g) * scale

    b_enc = normal(FEATURES, scale=0.2)
    kinds: dict[str, Activation] = {
        "relu": ReLU(),
        "jumprelu": JumpReLU(normal(FEATURES).abs() * 0.3),
        "gated": Gated(normal(FEATURES, scale=0.5), normal(FEATURES, scale=0.3), b_enc),
        "topk": TopK(7),
    }
    return SAE(
        normal(WIDTH, FEATURES, scale=WIDTH**-0.5), b_enc, normal(FEATURES, WIDTH), normal(WIDTH),
        kinds[activation], "test", Path("test"), normalization, layer=LAYER,
    )  # fmt: skip


def make_saes() -> dict[str, SAE]:
    """One of each activation and normalisation, all of one layer."""
    return {
        f"{a}-{n}": make_sae(a, n, i) for i, (a, n) in enumerate((a, n) for a in ACTIVATIONS for n in NORMALIZATIONS)
    }


def catalog(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> Catalog:
    return Catalog(WIDTH, dict.fromkeys(saes, (LAYER, FEATURES)), dict.fromkeys(vectors, LAYER), frozenset({LAYER}))


def every_program(saes: dict[str, SAE], vectors: dict[str, Tensor]) -> list[Program]:
    """Every change of a feature of every SAE, with and without a gate, every change of a vector, and some together."""
    changes = [
        {"add": 1.5}, {"scale": -0.5}, {"scale": 3}, {"ablate": True}, {"clamp": 2.5}, {"clamp": 2.5, "when": "active"},
        {"cap": 0.2},
    ]  # fmt: skip
    features = [{"sae": s, "feature": 3 + i, **c} for s in saes for i, c in enumerate(changes)]
    gated = [{**edit, "if": {"feature": 20, "above": 0.1}} for edit in features[::3]]
    across = [{**features[1], "if": {"sae": name, "feature": 9, "above": 0.2}} for name in saes]
    given = [0.1 * (i % 5 - 2) for i in range(WIDTH)]
    of_vectors = [
        {"vector": v, **({} if isinstance(v, str) else {"layer": LAYER}), **c}
        for v in [*vectors, given]
        for c in [
            {"add": 2.0},
            {"add": 0.3, "norm": "residual"},
            {"ablate": True},
            {"cap": 0.1},
            {"scale": 2.0},
            {"clamp": 1},
        ]
    ]
    single = [*features, *gated, *across, *of_vectors]
    together = [single[i : i + 5] for i in range(0, len(features) - 5, 9)]
    known = catalog(saes, vectors)
    return [known.program({"steer": steer}) for steer in [*([edit] for edit in single), *together]]


def expected(x: Tensor, program: Program, saes: dict[str, SAE], vectors: dict[str, Tensor]) -> Tensor:
    """x' [d] float64 for x [d], by the words of program.py and nothing else."""
    x = x.double()
    return x + sum((_change(x, edit, saes, vectors) for edit in program.steer), torch.zeros_like(x))


def _change(x: Tensor, edit: Edit, saes: dict[str, SAE], vectors: dict[str, Tensor]) -> Tensor:
    if edit.gate is not None and not _encoded(x, saes[edit.gate.sae])[edit.gate.feature] > edit.gate.above:
        return torch.zeros_like(x)
    if edit.feature is not None:
        sae = saes[edit.sae].to(dtype=torch.float64)
        f, direction, size = float(_encoded(x, sae)[edit.feature]), sae.W_dec[edit.feature], sae.sigma(x)
        if edit.when == "active" and f <= 0:
            return torch.zeros_like(x)
    else:
        vector = (vectors[edit.vector] if isinstance(edit.vector, str) else torch.tensor(edit.vector)).double()
        if edit.change == "add":
            return edit.value * (vector if edit.norm is None else x.norm() * vector / vector.norm())
        direction, size = vector / vector.norm(), 1.0
        f = float(x @ direction)
    new = {
        "add": f + edit.value, "scale": edit.value * f, "ablate": 0.0, "clamp": edit.value, "cap": min(f, edit.value)
    }[edit.change]  # fmt: skip
    return size * (new - f) * direction


def _encoded(x: Tensor, sae: SAE) -> Tensor:
    return sae.to(dtype=torch.float64).encode(x.double())
