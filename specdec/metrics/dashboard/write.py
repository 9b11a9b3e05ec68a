"""The files, as `specdec dashboard` writes them."""

import json
import re
from importlib import resources
from pathlib import Path

from specdec.errors import SpecdecError
from specdec.files import make_writable, replace_file
from specdec.metrics.dashboard.grafana import dashboard

DASHBOARD, RULES = "specdec-dashboard.json", "specdec-rules.yml"
DURATION = re.compile(r"[1-9][0-9]*[smhdw]")


def write_files(folder: Path, window: str, past: str) -> list[Path]:
    """Writes both files into the folder, which is made where it is missing. SpecdecError: bad duration or folder."""
    content = {
        DASHBOARD: json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
        RULES: rules(window, past),
    }
    try:
        make_writable(folder)
        for name, text in content.items():
            replace_file(folder / name, text.encode())
    except OSError as error:
        raise SpecdecError(
            f"Cannot write to the folder {str(folder)!r} ({error.strerror}): choose another --output."
        ) from None
    return [folder / name for name in content]


def rules(window: str, past: str) -> str:
    """Prometheus' rules, as YAML. window, past: see rules.yml. SpecdecError: no duration of Prometheus."""
    for option, value in (("--window", window), ("--past", past)):
        if not DURATION.fullmatch(value):
            raise SpecdecError(f"{option} {value!r} is no duration: give a whole number and s, m, h, d or w, as in 5m.")
    text = resources.files(__package__).joinpath("rules.yml").read_text("utf-8")
    # The comment that explains the two stays behind: in what is written they have their values.
    filled = text.replace("<window>", window).replace("<past>", past)
    return re.sub(
        r"^# .*: what a rate is.*$", f"# Rates over {window}, compared with the last {past}.", filled, flags=re.M
    )
