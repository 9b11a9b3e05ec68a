"""`specdec head`: a model's own MTP layer as a head and back, and folders in the EAGLE layout."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField

console = Console(highlight=False, soft_wrap=True)
app = typer.Typer(
    help="""Read and write heads in the forms that models and stock engines have.

    MiMo, DeepSeek-V3, Qwen3-Next and Qwen3.5 bring an MTP layer. Train it on and serve it where it was:

        specdec head extract --model MODEL --output OWN

        specdec train --model MODEL --data own.jsonl --init-from OWN --output HEAD

        specdec head put-back --head HEAD --model MODEL --output MODEL_WITH_HEAD

    Llama, Qwen2 and Qwen3 have none. A head in the EAGLE layout is loaded by engines without this plugin:

        specdec train --model MODEL --data own.jsonl --layout eagle --output HEAD

        specdec head export --head HEAD --output EAGLE
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Head = Annotated[Path, typer.Option(help="Folder of the head that `specdec train` or `specdec head extract` wrote.")]
Output = Annotated[Path, typer.Option(help="Folder to write; must not exist.")]


@app.command()
def extract(
    model: Annotated[Path, typer.Option(help="Folder of the target model (Hugging Face format).")],
    output: Output,
    eagle: Annotated[
        Path | None,
        typer.Option(help="Folder of an EAGLE head for this model, to read instead of the model's own MTP."),
    ] = None,
) -> None:
    """Write a model's own MTP layer (or the EAGLE head in --eagle) as a head, for `specdec train --init-from`.

    Nothing is converted: tensors keep the types that they have.

    Example:

        specdec head extract --model MiMo-7B-RL --output mimo-mtp
    """
    from specdec.heads.eagle import import_eagle
    from specdec.heads.native import extract as extract_native

    with console.status("reading"):
        if eagle is None:
            extract_native(model, output)
        else:
            import_eagle(eagle, model, output)
    console.print(f"head in {output}: train it on with `specdec train --model {model} --init-from {output} ...`")


@app.command("put-back")
def put_back(
    head: Head,
    model: Annotated[Path, typer.Option(help="Folder of the model that the head was trained for.")],
    output: Output,
) -> None:
    """Write a copy of the model with this head as its MTP layer.

    Files that hold nothing of it become hard links (of the same disk), so the copy takes little room: do not write into
    either folder's files afterwards. A model that lost its MTP layer in training gets it back.

    Example:

        specdec head put-back --head HEAD --model MiMo-7B-RL --output MiMo-7B-RL-tv
    """
    from specdec.heads.put_back import put_back as write

    with console.status("writing"):
        write(head, model, output)
    speculation = '{"method": "mtp", "num_speculative_tokens": 3, "draft_sample_method": "probabilistic"}'
    console.print(f"model in {output}, served with --speculative-config '{speculation}'", markup=False)


@app.command()
def export(
    head: Head,
    output: Output,
    engine: Annotated[str, typer.Option(help="vllm, or sglang, which expects another name and a bias.")] = "vllm",
) -> None:
    """Write a head of the layout `eagle` as a folder that stock engines load.

    Example:

        specdec head export --head HEAD --output EAGLE
    """
    from specdec.heads.eagle import export_eagle

    export_eagle(head, output, engine)
    speculation = f'{{"method": "eagle", "model": "{output}", "num_speculative_tokens": 3}}'
    if engine == "vllm":
        console.print(f"EAGLE head in {output}, served with --speculative-config '{speculation}'", markup=False)
    else:
        console.print(f"EAGLE head in {output}, served with --speculative-draft-model-path {output}", markup=False)


@app.command()
def calibrate(
    head: Head,
    model: Annotated[Path, typer.Option(help="Folder of the target model (Hugging Face format).")],
    data: Annotated[list[Path], typer.Option(help=f"Held-out data, best of what the model says itself. {DATA}")],
    num_steps_ahead: Annotated[int, typer.Option(min=1, help="Drafted tokens per step.")] = 3,
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens per window.")] = 256,
    windows: Annotated[int, typer.Option(min=1, help="Windows, evenly spread over the text.")] = 64,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Measure how sharply the head should draft at each temperature, and write that to its calibration.json.

    `specdec train` does it at its end. Servers start from the file; outputs keep their law whatever it says.

    Example:

        specdec head calibrate --head HEAD --model MODEL --data held_out.jsonl
    """
    from specdec.drafting import BUCKETS, save_calibration
    from specdec.heads import load_head
    from specdec.training.batches import held_out_windows
    from specdec.training.calibrate import calibrate as measure
    from specdec.training.data import TokenStream, load_documents
    from specdec.training.encode import Reading
    from specdec.training.formats import Fields, check_paths
    from specdec.training.target import Target

    check_paths(data)
    target = Target(model)
    loaded = load_head(head, target.config).to(target.device)
    reading = Reading(Fields(text_field, messages_field), chat_template, "all", target.config.vocab_size)
    stream = TokenStream.of(load_documents(target.tokenizer, data, reading))
    with console.status("measuring"):
        scales = measure(loaded, target, held_out_windows(stream, 16, seq_len, windows), num_steps_ahead)
    save_calibration(scales, head)
    for bucket, scale in zip(BUCKETS, scales.scales, strict=True):
        filters = "with" if bucket.filtered else "without"
        console.print(f"temperature {bucket.temperature:g} {filters} filters: logits times {scale:g}")
