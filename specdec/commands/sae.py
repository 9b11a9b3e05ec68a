"""`specdec sae`: sparse autoencoders of a model's residual stream."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField

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


@app.command()
def train(
    model: Annotated[Path, typer.Option(help="Folder of the model (Hugging Face format).")],
    data: Annotated[list[Path], typer.Option(help=DATA)],
    output: Annotated[Path, typer.Option(help="Folder for the SAE; must not hold one yet.")],
    layer: Annotated[int, typer.Option(help="Decoder layer whose output is read, from 0; two thirds up is usual.")],
    features: Annotated[int, typer.Option(help="Features of the SAE; 8 to 16 times the model's width is usual.")],
    k: Annotated[int, typer.Option(help="Active features per token, on average.")],
    eval_data: Annotated[list[Path] | None, typer.Option(help="Held-out text; default: a twentieth of --data.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens that the model reads in all.")] = 2_000_000,
    passes: Annotated[int, typer.Option(help="How often the SAE learns from each of them.")] = 1,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per optimiser step.")] = 2048,
    buffer_batches: Annotated[int, typer.Option(help="Batches that are read at once and shuffled.")] = 16,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    lr: Annotated[float | None, typer.Option(help="Default: 0.0002 sqrt(16384 / features).")] = None,
    dead_after: Annotated[
        int | None,
        typer.Option(help="Tokens without firing that make a feature dead; default: a twentieth of the run."),
    ] = None,
    eval_windows: Annotated[int, typer.Option(help="Held-out windows for the figures.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 2.0,
    save_dtype: Annotated[str, typer.Option(help="float32, or bfloat16 for half the size.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    model_name: Annotated[
        str | None, typer.Option(help="The model's name in the SAE's file; default: that of its folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --output.")] = False,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Train an SAE on a model's residual stream: BatchTopK, saved as JumpReLU in SAELens' layout.

    Example:

        specdec sae train --model MODEL --data text.jsonl --output SAE --layer 18 --features 2048 --k 16
    """
    options = {name: value for name, value in locals().items() if name != "resume"} | {"eval_data": eval_data or []}
    from specdec.commands.sae_train import train as run

    run(options, resume, console)


@app.command()
def features(
    model: Annotated[Path, typer.Option(help="Folder of the model (Hugging Face format).")],
    sae: Annotated[Path, typer.Option(help="Folder of the SAE, or its weight file.")],
    data: Annotated[list[Path], typer.Option(help=DATA)],
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("features.html"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the same to this file as JSON.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Features listed.")] = 100,
    order: Annotated[
        str,
        typer.Option(help="density or highest (largest first), one-token, or many-tokens (those that stand for more)."),
    ] = "density",
    feature: Annotated[list[int] | None, typer.Option(help="List this feature instead. Repeatable.")] = None,
    snippets: Annotated[int, typer.Option(min=1, help="Places shown of each feature.")] = 8,
    windows: Annotated[int, typer.Option(min=1, help="Windows read, evenly spread over the text.")] = 512,
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens per window.")] = 256,
    k: Annotated[int | None, typer.Option(help="Features per token, where a TopK SAE's files do not say.")] = None,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
) -> None:
    """List an SAE's features: how often each is active, on what, and what it promotes, as one HTML page.

    Example:

        specdec sae features --model MODEL --sae SAE --data text.jsonl --output features.html
    """
    from specdec.commands.sae_features import Wanted, write_features
    from specdec.training.encode import Reading
    from specdec.training.formats import Fields

    reading = Reading(Fields(text_field, messages_field), chat_template)
    wanted = Wanted(model, sae, data, reading, count, order, feature or [], snippets, windows, seq_len, k)
    write_features(wanted, output, json_file, console)


def _lines(facts: dict[str, Any]) -> str:
    shown = {True: "yes", False: "no", None: "not known"}
    width = max(map(len, facts))
    return "\n".join(
        f"{name.replace('_', ' '):<{width}}  {shown[v] if v is None or isinstance(v, bool) else v}"
        for name, v in facts.items()
    )
