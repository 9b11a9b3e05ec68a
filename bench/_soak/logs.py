"""What a server should not have written."""

import re
from pathlib import Path

# What comes behind this is about stopping: vLLM calls the end of its own engine an error. Whether streams were ended is
# seen by who reads them.
STOPPING = "[shutdown] API server: shutdown triggered"
SUSPECT = re.compile(
    r"\bERROR\b|\bCRITICAL\b|Traceback \(most recent call last\)|Exception|\bRuntimeError\b|is no distribution"
)


def suspects(log: Path, most: int = 10) -> list[str]:
    """Lines that tell of an error which no client made, shortened; the first `most` of them."""
    lines = log.read_text("utf-8", "replace").partition(STOPPING)[0].splitlines()
    return [line.strip()[:240] for line in lines if SUSPECT.search(line)][:most]
