"""The `specdec` command.

Commands live in specdec/commands, one file each, and are imported only when they are called: `specdec --help` must not
wait for PyTorch. An error meant for the user (SpecdecError) ends as one sentence on stderr and exit status 2.
"""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from specdec.errors import SpecdecError

HELP = """Speculative decoding with trained MTP heads for vLLM: train a head, serve with it, see what it gains.

Examples:

\b
  specdec doctor            what is installed, what works, what is wrong
  specdec demo              a small model with and without its head, measured
  specdec serve examples/tiny-lm/model --head examples/tiny-lm/head
  specdec generate --model DIR --data TEXT --output own.jsonl
  specdec train --model DIR --data own.jsonl --output HEAD --loss e2e-tv
  specdec sae info SAE      what a sparse autoencoder is, and whether it fits a model
  specdec COMMAND --help    the options of one command, with examples
"""


@dataclass(frozen=True)
class Entry:
    """Where a command's function is (or a group's typer app), and the line that `specdec --help` shows for it."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "demo": Entry("specdec.commands.demo", "demo", "Serve a model with and without its head: the gain."),
    "train": Entry("specdec.commands.train", "train", "Train an MTP head for a model."),
    "head": Entry("specdec.commands.head", "app", "A model's own MTP layer: take it out, put it back; EAGLE folders."),
    "sae": Entry("specdec.commands.sae", "app", "Sparse autoencoders: what one is, train one, list its features."),
    "generate": Entry(
        "specdec.commands.generate", "generate", "Let the model continue text, for its head to train on."
    ),
    "eval": Entry("specdec.commands.eval", "evaluate", "Measure the acceptance of a head on held-out text."),
    "serve": Entry("specdec.commands.serve", "serve", "Check model and head, print the engine's command, run it."),
    "watch": Entry("specdec.commands.watch", "watch", "Show what a running server does, in the terminal."),
    "dashboard": Entry(
        "specdec.commands.dashboard", "dashboard", "Write a Grafana dashboard and Prometheus alert rules."
    ),
    "doctor": Entry(
        "specdec.commands.doctor", "doctor", "Say what is installed, what works, and what to do about the rest."
    ),
    "conformance": Entry(
        "specdec.commands.conformance", "conformance", "Test verify steps, ours and others', against known bugs."
    ),
    "bench": Entry(
        "specdec.commands.bench", "bench", "List or run the benchmarks of a checkout (equality first, then times)."
    ),
}


def load_command(name: str) -> Any:
    """The real command of that name, its module imported."""
    entry = COMMANDS[name]
    function = getattr(importlib.import_module(entry.module), entry.function)
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name)(function)
    return typer.main.get_command(single)


class LazyCommand(TyperCommand):
    """Stands for a command in the list; becomes the real one when it is called."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        assert self.name is not None
        return load_command(self.name).make_context(*args, **kwargs)


class LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return LazyCommand(cmd_name, help=COMMANDS[cmd_name].summary, rich_markup_mode=None)


app = typer.Typer(
    cls=LazyGroup,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"specdec {version('specdec')}")
        raise typer.Exit()


@app.callback()
def _group(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point. `arguments` defaults to the process's own. Always ends in SystemExit."""
    try:
        app(args=arguments, prog_name="specdec")
    except SpecdecError as error:
        sentence = " ".join(str(error).split())
        typer.secho(f"specdec: {sentence}", fg=typer.colors.RED, err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
