"""`specdec sae`: sparse autoencoders of a model's residual stream."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(
    help="""Sparse autoencoders (SAEs): what one is, training one, what its features stand for.

    Read are SAELens, Gemma Scope (2), Llama Scope, Qwen-Scope, Goodfire, dictionary_learning and sparsify:

        specdec sae info SAE --model MODEL

    A model without a published SAE gets one of its own:

        specdec sae train --model MODEL --data text.jsonl --output SAE --layer 18 --features 2048 --k 16

        specdec sae features --model MODEL --sae SAE --data text.jsonl --output features.html
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Here so that `info` is a command of its own while it is the only one."""


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Folder of an SAE, or its weight file.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the model that it is to act in: does it fit?")] = None,
    k: Annotated[int | None, typer.Option(help="Features per token, where a TopK SAE's files do not say.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what an SAE is: format, size, activation, where it reads, and whether it fits a model.

    Example:

        specdec sae info gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 --model gemma-2-2b
    """
    from specdec.steering import load_sae
    from specdec.steering.describe import describe
    from specdec.steering.fit import misfit, model_config

    config = None if model is None else model_config(model)
    sae = load_sae(path, k)
    facts = describe(sae)
    if config is not None:
        reason = misfit(sae, config)
        facts |= {"fits": reason is None, **({"reason": reason} if reason else {})}
    console.print(json.dumps(facts, indent=2) if as_json else _lines(facts), markup=False)


def _lines(facts: dict[str, Any]) -> str:
    shown = {True: "yes", False: "no", None: "not known"}
    width = max(map(len, facts))
    return "\n".join(
        f"{name.replace('_', ' '):<{width}}  {shown[v] if v is None or isinstance(v, bool) else v}"
        for name, v in facts.items()
    )
