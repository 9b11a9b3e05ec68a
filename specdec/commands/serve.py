"""`specdec serve`: check, print the engine's command, become it."""

import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.console import Console

from specdec.config import SteeringSettings, parse_settings
from specdec.engines.checks import brings_mtp, check_eagle, check_head, check_model, is_eagle
from specdec.engines.command import Drafter, ServerCommand, server_command
from specdec.engines.installed import require_vllm
from specdec.errors import SpecdecError


def serve(
    model: Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hugging Face Hub.")],
    engine_args: Annotated[
        list[str] | None,
        typer.Argument(help="Behind `--`: arguments of the engine, passed on as they are.", metavar="-- ENGINE_ARGS"),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="Folder of the head that `specdec train` wrote for this model, or of an EAGLE head. Default: the "
            "MTP layer that the model has of its own."
        ),
    ] = "",
    num_drafts: Annotated[int, typer.Option(min=1, max=16, help="Tokens drafted per step.")] = 3,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Draft up to --num-drafts tokens: as many as make the most tokens per second, by what the server's "
            "own steps show. Requests with a seed of their own always have all.",
        ),
    ] = False,
    greedy_drafts: Annotated[
        bool, typer.Option("--greedy-drafts", help="Draft the head's argmax instead of sampling from it.")
    ] = False,
    verify_method: Annotated[str, typer.Option(help="How drafts are verified.")] = "token",
    draft_temperature: Annotated[
        str,
        typer.Option(
            help="How sharply drafts are drawn: same (at the request's temperature), calibrated (as measured for the "
            "head) or auto (from there on as acceptance shows). Outputs keep their law with each."
        ),
    ] = "auto",
    sae: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH of an SAE that requests may steer with and read; may be repeated.", metavar="NAME=PATH"
        ),
    ] = None,
    steering: Annotated[
        Path | None,
        typer.Option(help="JSON file with steering settings: saes, vectors, layers, presets, max_programs ..."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the command, but do not run it.")] = False,
) -> None:
    """Check model and head, print the engine's command, run it.

    What is wrong with the two folders is said before the engine starts. The printed command can be copied: it is all
    that is needed to use the head in a server of one's own.

    Examples:

        specdec serve examples/tiny-lm/model --head examples/tiny-lm/head

        specdec serve MODEL --head HEAD --num-drafts 4 --port 9000 --dry-run

        specdec serve MODEL --head HEAD -- --max-model-len 4096 --enforce-eager

        specdec serve MODEL --head HEAD --num-drafts 5 --adaptive

        specdec serve MODEL_WITH_MTP

        specdec serve examples/tiny-lm/model --head examples/tiny-lm/head --sae tiny=examples/tiny-lm/sae
    """
    drafts: dict[str, Any] = {"temperature": draft_temperature, **({"count": "adaptive"} if adaptive else {})}
    settings: dict[str, Any] = {"verify": {"method": verify_method}, "drafts": drafts}
    if steers := _steering(sae or [], steering):
        settings["steering"] = steers
    parsed = parse_settings({"specdec": settings})
    engine = require_vllm()
    target = check_model(model)
    if target is not None and parsed.steering.enabled:
        _check_steering(parsed.steering, target.get("text_config") or target)
    drafter = _drafter(head, target)
    command = server_command(
        "greedy" if greedy_drafts else "specdec",
        engine,
        model,
        head or None,
        drafter=drafter,
        num_drafts=num_drafts,
        settings=settings,
        host=host,
        port=port,
        extra=engine_args or (),
    )
    _announce(command, known=target is not None, model=model, head=head)
    if not dry_run:
        _check_port(host, port)
        _become(command)


def _steering(saes: list[str], file: Path | None) -> dict[str, Any]:
    """The settings of the file, and the SAEs named beside it. SpecdecError: no JSON object, or no NAME=PATH."""
    found: Any = {}
    if file is not None:
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise SpecdecError(f"--steering {str(file)!r} cannot be read as JSON ({error})") from None
        if not isinstance(found, dict):
            raise SpecdecError(f'--steering {str(file)!r} must hold an object of settings: {{"saes": ...}}')
    for given in saes:
        name, equals, path = given.partition("=")
        if not (name and equals and path):
            raise SpecdecError(f"--sae {given!r} is not NAME=PATH: give the SAE a name that requests call it by")
        found.setdefault("saes", {})[name] = path
    return dict(found)


def _check_steering(settings: SteeringSettings, target: dict[str, Any]) -> None:
    """What the engine would find out later. SpecdecError: see load_sources."""
    from specdec.engines.vllm.steering.sources import load_sources  # waits for PyTorch

    if {"hidden_size", "num_hidden_layers"} <= target.keys():
        load_sources(settings, SimpleNamespace(**target))


def _drafter(head: str, target: dict[str, Any] | None) -> Drafter:
    """What drafts, checked as far as the folders here tell. SpecdecError: nothing does, or it does not fit."""
    if not head:
        if target is not None and not brings_mtp(target):
            raise SpecdecError(
                "No head given, and the model has no MTP layer of its own: name a head's folder with --head DIR "
                "(`specdec train` makes one)."
            )
        return "own"
    if is_eagle(head):
        check_eagle(head, target)
        return "eagle"
    check_head(head, target)
    return "head"


def _announce(command: ServerCommand, known: bool, model: str, head: str) -> None:
    """The command goes to stdout (to be copied or piped), the words around it to stderr."""
    console = Console(stderr=True, highlight=False)
    if known and head:
        console.print(f"[green]✓[/] head {head} fits {model}")
    elif known:
        console.print(f"[green]✓[/] {model} drafts with its own MTP layer")
    else:
        console.print(f"[yellow]![/] {model} is no folder here: taken as a name on the Hub, checked by the engine")
    print(command.shell(), flush=True)


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SpecdecError(
                f"Cannot listen on {host}:{port} ({error.strerror}): choose another --host or --port."
            ) from None


def _become(command: ServerCommand) -> None:
    sys.stdout.flush()
    try:
        os.execvpe(command.argv[0], command.argv, {**os.environ, **command.env})
    except OSError as error:
        raise SpecdecError(
            f"Cannot run {command.argv[0]} ({error.strerror}): activate the environment that has the engine."
        ) from None
