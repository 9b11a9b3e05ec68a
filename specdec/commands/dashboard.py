"""`specdec dashboard`: a Grafana dashboard and Prometheus rules for the figures on a server's /metrics."""

from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    output: Annotated[Path, typer.Option(help="Folder for the two files; made where it is missing.")],
    window: Annotated[
        str,
        typer.Option(
            help="What the rules take rates over, and how long a condition has to last before an alert fires. At least "
            "four times the interval of scrapes.",
            metavar="DURATION",
        ),
    ] = "5m",
    past: Annotated[
        str, typer.Option(help="What the alerts that compare with the past look back over.", metavar="DURATION")
    ] = "1d",
) -> None:
    """Write a Grafana dashboard, and Prometheus recording and alert rules, for specdec's metrics.

    specdec-dashboard.json   acceptance by position, observed beside expected and exact; acceptance length, tokens/s;
    by entropy, by tenant; time of each phase; memory. Imported, it asks for a Prometheus.

    specdec-rules.yml   alerts: acceptance collapsed or fell; observed, expected and exact acceptance disagree (outputs
    may then be wrong); verification slower than before; draft rows lost. Each says what it means and what to do.

    Files of these names are replaced. Both are made for Prometheus 2.42 and Grafana 10, or later.

    Examples:

        specdec dashboard --output monitoring

        specdec dashboard --output /etc/prometheus/specdec --window 2m --past 6h
    """
    from specdec.metrics.dashboard import write_files

    board, rules = write_files(output, window, past)
    typer.echo(f"wrote {board}\n  Grafana: Dashboards, New, Import, and choose your Prometheus at its top")
    typer.echo(
        f"wrote {rules}\n"
        "  Prometheus: name it under rule_files in prometheus.yml, scrape the server's /metrics, and reload\n"
        f"  check: promtool check rules {rules}"
    )
