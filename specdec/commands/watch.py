"""`specdec watch`: a running server's figures in the terminal."""

import time
from typing import Annotated

import typer


def watch(
    url: Annotated[
        str, typer.Argument(help="The server, or its /metrics: http://HOST:PORT.")
    ] = "http://localhost:8000",
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds from one scrape to the next.")] = 2.0,
    last: Annotated[float, typer.Option(min=0.2, help="Seconds that the figures of late cover.")] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="Two scrapes, one table, and stop. So it is where stdout is no terminal.")
    ] = False,
) -> None:
    """Show what a server that runs specdec does at the moment.

    Acceptance by position, observed beside expected; tokens per step and per second; requests; entropy of the target;
    time of each phase. "exact" is the overlap of draft and target, of one step in 64; "ever": since the server started.
    Ctrl-C ends it. The server shows much the same as a page, at http://HOST:PORT/specdec.

    Examples:

        specdec watch

        specdec watch http://gpu-3:8000 --interval 5 --last 60

        specdec watch localhost:9000 --once
    """
    from rich.console import Console
    from rich.live import Live

    from specdec.errors import SpecdecError
    from specdec.watch.history import History
    from specdec.watch.scrape import metrics_url

    console = Console(highlight=False)
    history = History(metrics_url(url), max(last, interval))
    history.look()
    if once or not console.is_terminal:
        time.sleep(interval)
        history.look()
        console.print(history.table())
        return
    with Live(history.table(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(interval)
                note = ""
                try:
                    history.look()
                except SpecdecError as error:  # it may come back
                    note = str(error)
                live.update(history.table(note), refresh=True)
        except KeyboardInterrupt:
            return
