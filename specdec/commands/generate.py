"""`specdec generate`: text sampled by the served model itself, to train its head on."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from specdec.commands.data_options import DATA, ChatTemplate, MessagesField, TextField
from specdec.errors import SpecdecError

if TYPE_CHECKING:
    from specdec.training.prompts import Prompts

console = Console()


def generate(
    model: Annotated[Path, typer.Option(help="Folder of the model that will be served (Hugging Face format).")],
    data: Annotated[
        list[Path], typer.Option(help=f"Chats to answer again, or texts that prompts are cut from. {DATA}")
    ],
    output: Annotated[Path, typer.Option(help="The .jsonl to write: a line of token_ids for each prompt.")],
    count: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 10_000,
    prompt_tokens: Annotated[int, typer.Option(min=2, help="Length of prompts cut from texts.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, help="Longest continuation.")] = 192,
    temperature: Annotated[float, typer.Option(help="Sampling temperature, as it will be served.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus, as it will be served; 1: off.")] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in the engine's batch at most.")] = 64,
    eager: Annotated[bool, typer.Option("--eager", help="Do not compile the model first: for a small count.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts and of the sampling.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    text_field: TextField = None,
    messages_field: MessagesField = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Let the model continue text, or answer chats, through vLLM, and keep the tokens for `specdec train --data`.

    A head drafts for what the model says, which is not what people wrote: trained on the model's own continuations it
    is accepted more often. A chat is answered again, its last answer left out; chats are taken in shuffled rounds until
    there are --count answers.

    Examples:

        specdec generate --model MODEL --data text/train.jsonl --output own.jsonl --count 20000

        specdec generate --model MODEL --data chats.parquet --output own.jsonl --output-tokens 1024

        specdec train --model MODEL --data own.jsonl --output HEAD
    """
    if not (0 < temperature < math.inf):
        raise SpecdecError(f"--temperature {temperature} would not sample: give a finite number above 0")
    if not 0 < top_p <= 1:
        raise SpecdecError(f"--top-p {top_p} is not a share of the probability: give a number above 0, up to 1")
    plan = {
        "model": str(model), "data": [str(d) for d in data], "count": count, "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens, "temperature": temperature, "top_p": top_p, "seed": seed,
    }  # fmt: skip
    named = {"text_field": text_field, "messages_field": messages_field, "chat_template": chat_template}
    plan |= {name: str(value) for name, value in named.items() if value is not None}
    unfinished = output.with_name(output.name + ".part")
    done = _begin(output, unfinished, plan, resume)
    try:
        prompts = _prompts(plan)
    except SpecdecError:
        if not resume:  # nothing to go on with
            _settings(unfinished).unlink()
            unfinished.unlink()
        raise
    if done < count:
        from specdec.engines.vllm.generate import Sampling, continuations

        how = Sampling(output_tokens, temperature, top_p, seed, concurrency, eager)
        _write(unfinished, prompts, done, continuations(model, prompts.ids[done:], done, how), output_tokens)
    os.replace(unfinished, output)
    _settings(unfinished).unlink()
    console.print(f"wrote {count} documents to {output}")


def _settings(unfinished: Path) -> Path:
    return unfinished.with_name(unfinished.name + ".json")


def _begin(output: Path, unfinished: Path, plan: dict[str, Any], resume: bool) -> int:
    """Checks before anything heavy; the number of documents that an interrupted run has written already."""
    if output.exists():
        raise SpecdecError(f"{output} is there already: choose another --output, or remove it")
    started = _settings(unfinished)
    if not resume:
        if started.exists():
            raise SpecdecError(f"{unfinished} is an interrupted run: add --resume to go on, or remove it")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(b"")
            started.write_text(json.dumps(plan))
        except OSError as error:
            raise SpecdecError(f"cannot write {unfinished} ({error.strerror}): choose another --output") from None
        return 0
    if not started.exists():
        raise SpecdecError(f"there is no interrupted run at {unfinished}: leave out --resume to start one")
    before = json.loads(started.read_text())
    for name in before | plan:
        value = plan.get(name)
        if before.get(name) != value:
            option = "--" + name.replace("_", "-")
            raise SpecdecError(
                f"{unfinished} was started with {option} {before.get(name)}, not {value}: resume with the same options"
            )
    return _whole_lines(unfinished)


def _whole_lines(path: Path) -> int:
    """Counts the complete lines and cuts off one that was interrupted."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    return content.count(b"\n")


def _prompts(plan: dict[str, Any]) -> "Prompts":
    from transformers import AutoTokenizer

    from specdec.engines.checks import check_model
    from specdec.training.encode import Encoder, Reading
    from specdec.training.formats import Fields, read_documents
    from specdec.training.prompts import make_prompts

    config = check_model(plan["model"]) or {}
    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    template = plan.get("chat_template")
    reading = Reading(
        Fields(plan.get("text_field"), plan.get("messages_field")),
        Path(template) if template else None,
        vocab_size=config.get("vocab_size"),
    )
    documents = list(read_documents(plan["data"], reading.fields))
    longest = config.get("max_position_embeddings", math.inf)
    sizes = (plan["count"], plan["prompt_tokens"], plan["output_tokens"])
    return make_prompts(documents, Encoder(tokenizer, reading), *sizes, plan["seed"], longest)


def _write(path: Path, prompts: "Prompts", done: int, answers: Iterator[list[int]], longest: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with path.open("a") as file, Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("continuations", total=len(prompts.ids), completed=done)
        for prompt, answer in zip(prompts.ids[done:], answers, strict=True):
            file.write(json.dumps(_record(prompt, answer, prompts.end, longest)) + "\n")
            file.flush()
            progress.advance(task)


def _record(prompt: list[int], answer: list[int], end: int | None, longest: int) -> dict[str, Any]:
    """What `specdec train` reads. The answer comes without its end token; shorter than `longest`, it had one."""
    if end is None:  # the start token is left off: packing puts one before every document
        return {"token_ids": prompt[1:] + answer, "prompt_tokens": len(prompt) - 1}
    ending = [end] if len(answer) < longest else []
    return {"token_ids": prompt + answer + ending, "prompt_tokens": len(prompt), "add_start_token": False}
