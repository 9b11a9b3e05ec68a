"""vLLM's own drafts, in real engines on the CPU, are those of our module: every family, random models.

What an engine drafts depends on how it reads the checkpoint, joins the inputs, shifts positions and fills its cache, so
equal logits at every step of several proposals say that training sees what serving does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from specdec.heads import HeadConfig, MTPHead, load_head, save_head
from specdec.heads.eagle import export_eagle
from specdec.heads.module import init_from_target, init_random
from specdec.heads.native import extract
from specdec.heads.put_back import put_back
from specdec.heads.target_config import load_config
from specdec.training.data import TokenStream
from specdec.training.target import Target
from tests.engines.vllm.engine import BASE
from tests.helpers.native_models import NATIVE_FAMILIES, make_native
from tests.helpers.tiny_models import FAMILIES, make_target

CHILD = Path(__file__).with_name("families_child.py")
PROMPT = [5, 9, 30, 44, 2, 7, 81]
DRAFTS = 3
# Sizes that vLLM's attention for CPUs has.
SIZES: dict[str, Any] = {"head_dim": 32, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


def run_engines(runs: dict[str, dict[str, Any]], folder: Path, **env: str) -> dict[str, Any]:
    base = {
        **BASE,
        "max_model_len": 64,
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "num_gpu_blocks_override": 64,
    }
    call = {
        "runs": {name: {**base, **run} for name, run in runs.items()},
        "prompt": PROMPT,
        "params": {"max_tokens": 12, "temperature": 0, "ignore_eos": True},
        "sampled": {"max_tokens": 24, "temperature": 1, "ignore_eos": True},
        "output": str(folder / "found.pt"),
    }
    done = subprocess.run(
        [sys.executable, str(CHILD)], input=json.dumps(call), capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(folder / "found.pt")
    for name in runs:
        assert "failed" not in found[name], f"{name}: {found[name]['failed']}\n{done.stderr[-6000:]}"
    return found


def speculation(method: str, model: Path | None = None, **more: str) -> dict[str, Any]:
    named = more if model is None else {"model": str(model), **more}
    return {"speculative_config": {"method": method, "num_speculative_tokens": DRAFTS, **named}}


@torch.no_grad()
def our_drafts(target: Target, head: MTPHead, token_ids: list[int], drafted: torch.Tensor, anchor: int) -> torch.Tensor:
    """Logits [k, V] of the chain at `anchor` of this text, followed by the tokens `drafted` [k] as the engine chose."""
    steps = len(drafted)
    known = token_ids[: anchor + 2]
    text = TokenStream.pack([known[1:]], known[0]).windows(torch.tensor([0]), len(known))
    hidden = target.hidden(text)[:, : anchor + 1]
    embeddings = target.embed(torch.tensor([*known, *drafted.tolist()[: steps - 1]]))[None]
    hidden = torch.nn.functional.pad(hidden, (0, 0, 0, steps))
    outs = head(embeddings, hidden, steps, torch.arange(anchor + 1 + steps)[None])
    return target.logits(torch.stack([out[0, anchor] for out in outs]))


def assert_same_drafts(run: dict[str, Any], model: Path, head: MTPHead) -> None:
    """Every proposal, every step, to 1e-3 of the logits' own size."""
    target = Target(model, torch.float32)
    # Behind accepted tokens that max_tokens cut off, the last proposal starts where the output has ended.
    drafts = [draft for draft in run["drafts"] if draft["anchor"] + 1 < len(run["token_ids"])]
    assert len(drafts) >= 4 and drafts[0]["anchor"] == len(PROMPT) - 1
    for draft in drafts:
        theirs = torch.stack(draft["logits"])
        assert len(theirs) == DRAFTS and draft["next"] == run["token_ids"][draft["anchor"] + 1]
        ours = our_drafts(target, head, run["token_ids"], theirs.argmax(-1), draft["anchor"])
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-3 * max(1.0, ours.abs().max().item()))


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Engines without our plugin: each family's own MTP as a head that went back in, EAGLE heads for dense targets."""
    root = tmp_path_factory.mktemp("stock")
    runs = {}
    for family in NATIVE_FAMILIES:
        model = make_native(root / "as-released" / family, family, shards=2)
        extract(model, root / "heads" / family)
        head = load_head(root / "heads" / family)
        with torch.no_grad():
            for parameter in head.parameters():  # not what the model came with
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        save_head(head, root / "heads" / family)
        put_back(root / "heads" / family, model, root / "models" / family)
        runs[family] = {"model": str(root / "models" / family), **speculation("mtp")}
    runs["mimo"]["trust_remote_code"] = True
    runs["deepseek_v3"]["attention_config"] = {"backend": "CPU_MLA"}  # AMX's takes bfloat16 alone
    for family in FAMILIES:
        name = f"{family}-eagle"
        model = make_target(root / "models" / name, family, **SIZES)
        make_head(model, root / "heads" / name, "eagle")
        export_eagle(root / "heads" / name, root / "eagle" / name)
        runs[name] = {"model": str(model), **speculation("eagle", root / "eagle" / name)}
    return root, run_engines(runs, root, VLLM_PLUGINS="")


def make_head(model: Path, folder: Path, layout: str) -> None:
    head = MTPHead(HeadConfig.for_target(load_config(model), layout))
    init_random(head, std=0.1, generator=torch.Generator().manual_seed(3))
    save_head(head, folder)


@pytest.mark.parametrize("family", NATIVE_FAMILIES)
def test_the_familys_own_mtp(stock, family):
    root, found = stock
    assert_same_drafts(found[family], root / "models" / family, load_head(root / "heads" / family))


def test_what_this_vllm_needs_for_deepseek_on_a_cpu(stock):
    """If this fails, vLLM has mended its kernel: take replace_rotary_kernel out, and the README's remark."""
    assert stock[1]["rotary_error"] > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_eagle_in_an_engine_without_the_plugin(stock, family):
    root, found = stock
    name = f"{family}-eagle"
    assert found[name]["drafter"] == "EagleLlamaForCausalLM"
    assert_same_drafts(found[name], root / "models" / name, load_head(root / "heads" / name))


def near_perfect_mimo(root: Path) -> tuple[Path, Path]:
    """A target whose layers add little to the token's embedding, with the MTP layer that knows it: (model, head).

    The layer reads the next token's embedding alone, as the target at that token does almost, adds what the target's
    last layer does, and ends in the target's norm.
    """
    model = make_native(root / "released", "mimo")
    tensors = load_file(model / "model.safetensors")
    for name in tensors:
        if name.startswith("model.layers.") and ("o_proj" in name or "down_proj" in name):
            tensors[name] *= 0.005
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    target = Target(model, torch.float32)
    head = MTPHead(HeadConfig.for_target(target.config))
    init_from_target(head, target.model)
    with torch.no_grad():
        head.eh_proj.weight.copy_(torch.cat((torch.zeros(64, 64), torch.eye(64)), dim=1))  # [hidden, embedding]
    save_head(head, root / "head")
    put_back(root / "head", model, root / "model")
    return root / "model", root / "head"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Engines with our worker: heads of our own for dense targets, an EAGLE head, a MiMo as it was and with a head."""
    root = tmp_path_factory.mktemp("ours")
    plugin = {"worker_cls": "specdec.engines.vllm.Worker", "additional_config": {"specdec": {}}}
    sampled = {"draft_sample_method": "probabilistic"}
    runs = {}
    for family in FAMILIES:
        model = make_target(root / "models" / family, family, **SIZES)
        make_head(model, root / "heads" / family, "standalone")
        runs[family] = {"model": str(model), **speculation("mtp", root / "heads" / family, **sampled)}
    make_head(root / "models" / "llama", root / "heads" / "llama-eagle", "eagle")
    export_eagle(root / "heads" / "llama-eagle", root / "eagle")
    runs["llama-eagle"] = {**runs["llama"], **speculation("eagle", root / "eagle", **sampled)}
    model, _ = near_perfect_mimo(root / "mimo")
    for name, folder in (("mimo", model), ("mimo-released", root / "mimo" / "released")):
        runs[name] = {"model": str(folder), "trust_remote_code": True, **speculation("mtp", **sampled)}
    return root, run_engines({name: {**run, **plugin} for name, run in runs.items()}, root)


@pytest.mark.parametrize("name", [*FAMILIES, "llama-eagle"])
def test_heads_with_our_worker(ours, name):
    root, found = ours
    head = load_head(root / "heads" / name)
    assert found[name]["drafter"] == ("EagleLlamaForCausalLM" if name == "llama-eagle" else "SpecdecMTPHead")
    assert_same_drafts(found[name], root / "models" / name.removesuffix("-eagle"), head)


def test_a_head_put_back_is_served_and_accepted(ours):
    """The same target with the layer that it had, which is random, and with the head: greedy text is the target's own,
    drafts are our module's behind accepted ones too, and at temperature 1 most of them are accepted."""
    root, found = ours
    run = found["mimo"]
    target = Target(root / "mimo" / "model", torch.float32)
    greedy = target.model.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert run["token_ids"] == found["mimo-released"]["token_ids"] == greedy[0].tolist()
    assert run["accepted"] >= 4 > found["mimo-released"]["accepted"]
    assert_same_drafts(run, root / "mimo" / "model", load_head(root / "mimo" / "head"))
    share, before = (
        found[n]["sampled"]["accepted"] / found[n]["sampled"]["drafted"] for n in ("mimo", "mimo-released")
    )
    assert share > 0.5 > 0.2 > before
