"""What the tests of steering serve: random SAEs for the shipped model, programs, and requests."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from specdec.steering import SAE, load_sae
from specdec.steering.activations import JumpReLU
from specdec.steering.program import Catalog, Program
from specdec.steering.save import save_sae
from tests.engines.vllm.engine import ask_child, ours

WIDTH, FEATURES, LAYERS = 160, 320, 28
MIDDLE, LATE = 12, 20  # decoder layers
CHILD = "tests.engines.vllm.steering.child:main"


@dataclass(frozen=True)
class Served:
    """Settings of the plugin, and what they name, as loaded."""

    settings: dict[str, Any]
    saes: dict[str, SAE]
    vectors: dict[str, Tensor]
    catalog: Catalog

    def program(self, raw: dict[str, Any]) -> Program:
        return self.catalog.program(raw)


def make_served(folder: Path, **settings: Any) -> Served:
    """An SAE in the middle (JumpReLU) and one late (TopK), of random directions, and a vector."""
    middle = random_sae(1)
    save_sae(replace(middle, hook=f"blocks.{MIDDLE}.hook_resid_post"), folder / "middle")
    save_topk(random_sae(2), folder / "late")
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    save_file({"vector": vector}, folder / "calm.safetensors")
    steering = {
        "saes": {
            "middle": str(folder / "middle"),
            "late": {"path": str(folder / "late"), "layer": LATE},
        },
        "vectors": {"calm": {"path": str(folder / "calm.safetensors"), "layer": MIDDLE}},
        "layers": [LATE],
        "presets": {"gentle": {"steer": [{"vector": "calm", "add": 0.5}], "on": "generated"}},
        **settings,
    }
    saes = {"middle": load_sae(folder / "middle"), "late": replace(load_sae(folder / "late"), layer=LATE)}
    catalog = Catalog(
        WIDTH, {"middle": (MIDDLE, FEATURES), "late": (LATE, FEATURES)}, {"calm": MIDDLE}, frozenset({LATE}),
        presets=steering["presets"],
    )  # fmt: skip
    return Served({"steering": steering}, saes, {"calm": vector}, catalog)


def random_sae(seed: int) -> SAE:
    g = torch.Generator().manual_seed(seed)
    encoder, decoder = (torch.randn(*shape, generator=g) for shape in ((WIDTH, FEATURES), (FEATURES, WIDTH)))
    return SAE(
        encoder * WIDTH**-0.5, torch.zeros(FEATURES), decoder / decoder.norm(dim=-1, keepdim=True), torch.zeros(WIDTH),
        JumpReLU(torch.full((FEATURES,), 0.2)), "test", Path("random"),
    )  # fmt: skip


def save_topk(sae: SAE, folder: Path) -> None:
    """In SAELens' layout."""
    folder.mkdir()
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    save_file({name: getattr(sae, name) for name in names}, folder / "sae_weights.safetensors")
    config = {
        "architecture": "topk", "k": 16, "d_in": WIDTH, "d_sae": FEATURES, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.0.0"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))


# The stream of this model has norms of about 600.
PROGRAMS: list[dict[str, Any]] = [
    {"steer": [{"sae": "middle", "feature": 5, "add": 300}]},
    {"steer": [{"sae": "middle", "feature": 9, "clamp": 600, "if": {"feature": 30}}]},
    {"steer": [{"sae": "late", "feature": 7, "add": 350}], "on": "generated"},
    {"steer": [{"sae": "late", "feature": f, "scale": -4} for f in range(40, 48)]},
    {"steer": [{"vector": "calm", "add": 0.4, "norm": "residual"}, {"sae": "late", "feature": 3, "add": -200}]},
    {"steer": [{"vector": [0.1 * (i % 7 - 3) for i in range(WIDTH)], "layer": LATE, "add": 120}], "on": "generated"},
    {"steer": [{"vector": "calm", "cap": -200}]},
]


def request(ids: list[int], program: Any = None, salt: str | None = None, **params: Any) -> dict[str, Any]:
    """Greedy, unless params say otherwise."""
    extra = {} if program is None else {"extra_args": {"specdec": program}}
    return {
        "ids": ids,
        "salt": salt,
        "params": {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True, **extra, **params},
    }


def serve(rounds: list[list[dict[str, Any]]], served: Served | None, drafts: int = 3, **engine: Any) -> Any:
    """The rounds' answers in one engine; served None: no steering."""
    from tests.engines.vllm.engine import BASE

    arguments = {**BASE, **ours(drafts, settings=served.settings if served else {}), **engine}
    return ask_child({"engine": arguments, "rounds": rounds}, CHILD)
